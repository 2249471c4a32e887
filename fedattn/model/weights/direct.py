"""Products of a few rows with a matrix by its blocks as they are, as decoding has them."""

import threading
from collections.abc import Callable

import torch

from fedattn.model.weights.ggml import ggml
from fedattn.model.weights.graphs import Draft
from fedattn.model.weights.matrix import BlocksMatrix

_SIZES = (1, 2, 4, 8, 16)
MOST_ROWS = _SIZES[-1]
_TENSORS = 8


class DirectProduct:
    """Several times faster than expanding, and rounded. Any thread may call; each has graphs.

    Args:
        matrix: of the weights.
    """

    def __init__(self, matrix: BlocksMatrix) -> None:
        self._matrix = matrix
        self._kept = threading.local()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in] to [N, out], float32, N up to MOST_ROWS.

        The rows are rounded to 8 bits, a scale for each block; a row's product depends on no other.
        """
        size = next(size for size in _SIZES if size >= len(x))
        run, inputs, out = self._graph(size, torch.get_num_threads())
        inputs[: len(x)] = x
        run()
        return out[: len(x)].clone()

    def _graph(
        self, size: int, threads: int
    ) -> tuple[Callable[[], None], torch.Tensor, torch.Tensor]:
        graphs = vars(self._kept).setdefault("graphs", {})
        found: tuple[Callable[[], None], torch.Tensor, torch.Tensor] | None
        found = graphs.get((size, threads))
        if found is None:
            found = graphs[size, threads] = self._draw(size, threads)
        return found

    def _draw(
        self, size: int, threads: int
    ) -> tuple[Callable[[], None], torch.Tensor, torch.Tensor]:
        matrix, library = self._matrix, ggml().graphs
        inputs = torch.zeros(size, matrix.width)
        out = torch.empty(size, matrix.num_rows)
        draft = Draft(library, _TENSORS)
        weights = draft.take(
            matrix.blocks, matrix.width, matrix.num_rows, number=matrix.form.number
        )
        draft.into(out, 0, "mul_mat", weights, draft.take(inputs))
        return library.draw(draft, threads), inputs, out
