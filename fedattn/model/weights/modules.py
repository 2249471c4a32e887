"""Modules of torch whose weights are blocks: they take the place of a network's own.

They compute in float32 as if the weights were expanded, so that what a token becomes does not
depend on how many run at once. Within `direct_products` a few rows are multiplied by the blocks as
they are, as `GraphDecoder` has it: several times faster, and rounded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.nn.functional import linear

from fedattn.model.weights.direct import MOST_ROWS, DirectProducts
from fedattn.model.weights.matrix import BlocksMatrix

_direct: ContextVar[DirectProducts | None] = ContextVar("direct products", default=None)


@contextmanager
def direct_products(products: DirectProducts) -> Iterator[None]:
    """Up to 16 rows are multiplied by stored blocks within it, in this thread.

    They are rounded to 8 bits, a scale for each block; a row's product depends on no other row.

    Args:
        products: those of the answer, whose graphs are kept for the next time.
    """
    token = _direct.set(products)
    try:
        yield
    finally:
        _direct.reset(token)


class BlocksLinear(torch.nn.Module):
    """In place of `torch.nn.Linear`.

    Args:
        matrix: its weights.
        bias: [out] float32, or None.
    """

    def __init__(self, matrix: BlocksMatrix, bias: torch.nn.Parameter | None = None) -> None:
        super().__init__()
        self.matrix = matrix
        self.out_features, self.in_features = matrix.num_rows, matrix.width
        self.bias: torch.nn.Parameter | None = bias

    @property
    def weight(self) -> torch.Tensor:
        """[out, in] float32, made anew each time."""
        return self.matrix.expand()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out], float32."""
        if x.requires_grad and torch.is_grad_enabled():
            return linear(x, self.weight, self.bias)
        rows = x.reshape(-1, self.in_features)
        direct = _direct.get() if len(rows) <= MOST_ROWS else None
        out = self.matrix.apply(rows) if direct is None else direct.multiply(self.matrix, rows)
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], self.out_features)


class BlocksEmbedding(torch.nn.Module):
    """In place of `torch.nn.Embedding`; expands the rows that it looks up.

    Args:
        matrix: its weights.
        scale: factor on the rows.
    """

    def __init__(self, matrix: BlocksMatrix, scale: float = 1.0) -> None:
        super().__init__()
        self.matrix = matrix
        self.scale = scale

    @property
    def weight(self) -> torch.Tensor:
        """[V, d] float32, made anew each time."""
        return self.matrix.expand()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """[...] int64 to [..., d] float32."""
        rows = self.matrix.rows(ids)
        return rows if self.scale == 1 else rows * self.scale


def matrices_of(network: Any) -> list[BlocksMatrix]:
    """Every matrix in blocks of a network, once."""
    found = {id(module.matrix): module.matrix for module in network.modules() if _is_ours(module)}
    return list(found.values())


def _is_ours(module: Any) -> bool:
    return isinstance(module, BlocksLinear | BlocksEmbedding)
