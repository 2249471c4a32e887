"""Norms and linear layers as parts of a graph of ggml."""

from dataclasses import dataclass
from typing import Any

import torch

from fedattn.model.projections import norm_factors
from fedattn.model.weights.graphs import F32, Draft
from fedattn.model.weights.modules import BlocksLinear


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphNorm:
    """An RMS norm.

    Attributes:
        factors: [d] float32.
        eps: added to mean squares.
    """

    factors: torch.Tensor
    eps: float

    def draw(self, draft: Draft, x: int) -> int:
        normed = draft.between("rms_norm", x, self.eps)
        return draft.between("mul", normed, draft.take(self.factors))


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphNorms:
    """Makes the norms of a model.

    Attributes:
        eps: added to mean squares.
        offset: added to weights.
    """

    eps: float
    offset: float

    def of(self, module: Any) -> GraphNorm:
        """Of a module."""
        factors = norm_factors(module, self.offset).contiguous()
        return GraphNorm(factors=factors, eps=self.eps)

    def of_any(self, module: Any) -> GraphNorm | None:
        """Of a module that not every family has."""
        return None if module is None else self.of(module)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphLinear:
    """A linear layer.

    Attributes:
        weight: [out, bytes] uint8 blocks, or [out, in] float32.
        number: of their format in ggml.
        width: in.
        bias: [out] float32; None for none.
    """

    weight: torch.Tensor
    number: int
    width: int
    bias: torch.Tensor | None

    @classmethod
    def of(cls, module: Any) -> "GraphLinear":
        """Of a module; its own memory, unless that is floats of another precision."""
        bias = None if module.bias is None else module.bias.detach().float().contiguous()
        if isinstance(module, BlocksLinear):
            matrix = module.matrix
            return cls(
                weight=matrix.blocks, number=matrix.form.number, width=matrix.width, bias=bias
            )
        weight = module.weight.detach().float().contiguous()
        return cls(weight=weight, number=F32, width=weight.shape[1], bias=bias)

    @property
    def num_rows(self) -> int:
        return len(self.weight)

    def draw(self, draft: Draft, x: int) -> int:
        """[N, in] to [N, out]."""
        weight = draft.take(self.weight, self.width, self.num_rows, number=self.number)
        product = draft.between("mul_mat", weight, x)
        if self.bias is None:
            return product
        return draft.between("add", product, draft.take(self.bias))


def draw_if_any(draft: Draft, norm: GraphNorm | None, x: int) -> int:
    """Normed where there is a norm."""
    return x if norm is None else norm.draw(draft, x)
