"""Products of a few rows with a matrix by its blocks as they are, as decoding has them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from fedattn.model.weights.ggml import ggml
from fedattn.model.weights.graphs import Draft
from fedattn.model.weights.matrix import BlocksMatrix

_SIZES = (1, 2, 4, 8, 16)
MOST_ROWS = _SIZES[-1]
_TENSORS = 8
_GRAPH_BYTES = 12 << 10
"""Of one graph, beside rows that it rounds."""
_FLOAT = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Product:
    """A graph for some rows [N, in] of inputs to out [N, out], both in rooms."""

    run: Callable[[int], None]
    inputs: torch.Tensor
    out: torch.Tensor


class DirectProducts:
    """Several times faster than expanding, and rounded; for one answer, in one thread at a time.

    A graph is drawn once for each matrix and number of rows, which takes as long as running it, and
    is gone with this. One runs after the other, so rows lie in the same memory for all of them.
    """

    def __init__(self) -> None:
        self._drawn: dict[tuple[BlocksMatrix, int], _Product] = {}
        self._inputs, self._out = torch.zeros(0), torch.zeros(0)

    def multiply(self, matrix: BlocksMatrix, x: torch.Tensor) -> torch.Tensor:
        """[N, in] to [N, out], float32, N up to MOST_ROWS.

        The rows are rounded to 8 bits, a scale for each block; a row's product depends on no other.
        """
        size = next(size for size in _SIZES if size >= len(x))
        key = matrix, size
        product = self._drawn.get(key)
        if product is None:
            product = self._drawn[key] = self._draw(*key)
        product.inputs[: len(x)] = x
        product.run(torch.get_num_threads())
        return product.out[: len(x)].clone()

    def _draw(self, matrix: BlocksMatrix, size: int) -> _Product:
        self._inputs = _at_least(MOST_ROWS * matrix.width, self._inputs)
        self._out = _at_least(MOST_ROWS * matrix.num_rows, self._out)
        inputs = self._inputs[: size * matrix.width].view(size, matrix.width)
        out = self._out[: size * matrix.num_rows].view(size, matrix.num_rows)
        library = ggml().graphs
        draft = Draft(library, _TENSORS)
        weights = draft.take(
            matrix.blocks, matrix.width, matrix.num_rows, number=matrix.form.number
        )
        draft.into(out, 0, "mul_mat", weights, draft.take(inputs))
        return _Product(library.draw(draft), inputs, out)


def most_bytes(matrices: Sequence[BlocksMatrix]) -> int:
    """What a `DirectProducts` holds once it has multiplied all of these by any number of rows.

    Each graph has room for its rows as 8 bits and a scale, which is less than 2 bytes a scalar.
    """
    if not matrices:
        return 0
    widest = max(matrix.width for matrix in matrices)
    tallest = max(matrix.num_rows for matrix in matrices)
    rounded = sum(2 * sum(_SIZES) * matrix.width for matrix in matrices)
    graphs = len(_SIZES) * len(matrices) * _GRAPH_BYTES
    return rounded + graphs + MOST_ROWS * _FLOAT * (widest + tallest)


def _at_least(num_scalars: int, room: torch.Tensor) -> torch.Tensor:
    """This room, or a larger one; graphs that are drawn keep theirs."""
    return room if len(room) >= num_scalars else torch.zeros(num_scalars)
