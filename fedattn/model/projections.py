"""Where the weights of a block are that make its queries, keys and values.

Some families keep one matrix for each of the three, some one for all; some norm every key.
"""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """A linear layer, or a slice of one.

    Attributes:
        weight: [out, d].
        bias: [out]; None for none.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Projections:
    """What a block makes its queries, keys and values with.

    Attributes:
        norm: [d] factors of the RMS norm before them.
        query: to [Hq D].
        key, value: to [Hkv D].
        query_norm, key_norm: [D] factors of the RMS norm of every head; None for none.
        scaling: factor on the scores, which queries that travel carry already.
    """

    norm: torch.Tensor
    query: Projection
    key: Projection
    value: Projection
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    scaling: float


def norm_factors(norm: Any, offset: float) -> torch.Tensor:
    """[d] float32 that an RMS norm multiplies by: Gemma keeps them less one."""
    factors: torch.Tensor = norm.weight.detach().float() + offset
    return factors


def read_projections(layer: Any, norm_offset: float = 0.0) -> Projections:
    """Find them in a decoder layer of transformers.

    Args:
        layer: with `input_layernorm` and `self_attn`.
        norm_offset: what norms add to their weights.
    """
    attention = layer.self_attn
    query, key, value = _fused(attention) if hasattr(attention, "qkv_proj") else _three(attention)
    return Projections(
        norm=norm_factors(layer.input_layernorm, norm_offset),
        query=query,
        key=key,
        value=value,
        query_norm=_of_heads(attention, "q_norm", norm_offset),
        key_norm=_of_heads(attention, "k_norm", norm_offset),
        scaling=float(attention.scaling),
    )


def _of_heads(attention: Any, name: str, norm_offset: float) -> torch.Tensor | None:
    norm = getattr(attention, name, None)
    return None if norm is None else norm_factors(norm, norm_offset)


def _three(attention: Any) -> list[Projection]:
    linears = (attention.q_proj, attention.k_proj, attention.v_proj)
    return [Projection(weight=linear.weight, bias=linear.bias) for linear in linears]


def _fused(attention: Any) -> list[Projection]:
    """Slices of one matrix: queries first, then keys, then values."""
    linear, of_kv = attention.qkv_proj, attention.num_key_value_heads * attention.head_dim
    sizes = [linear.weight.shape[0] - 2 * of_kv, of_kv, of_kv]
    biases = [None] * 3 if linear.bias is None else list(linear.bias.split(sizes))
    return [
        Projection(weight=weight, bias=bias)
        for weight, bias in zip(linear.weight.split(sizes), biases, strict=True)
    ]
