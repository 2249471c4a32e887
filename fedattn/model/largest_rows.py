"""The longest keys and values that the weights of a model can make."""

from collections.abc import Iterable, Sequence

import torch

from fedattn.core.row_bounds import RowBounds
from fedattn.core.types import KvShape
from fedattn.model.projections import Projection, Projections


@torch.inference_mode()
def largest_rows(
    blocks: Iterable[Projections], key_scales: Sequence[float], shape: KvShape
) -> RowBounds:
    """Bounds on the rows of every block and KV head.

    A row of a head is W (g * n) + b, where n is the hidden state divided by the root of its mean
    square and g the factors of the norm. |n| <= sqrt(d), so |row| <= sqrt(d) |W diag(g)| + |b| with
    the spectral norm, and there is a direction of n that reaches the first term. A key that is
    normed itself is h * k, |k| <= sqrt(D), so |row| <= sqrt(D) max |h|.

    Args:
        blocks: of every block.
        key_scales: of every block, by how much RoPE lengthens a key at most.
        shape: of the rows.
    """
    keys, values = [], []
    for block, scale in zip(blocks, key_scales, strict=True):
        keys.append(_longest_keys(block, shape) * scale)
        values.append(_lengths(block.norm, block.value, shape))
    return RowBounds(keys=torch.stack(keys).numpy(), values=torch.stack(values).numpy())


def _longest_keys(block: Projections, shape: KvShape) -> torch.Tensor:
    """[Hkv] float32, before RoPE."""
    if block.key_norm is None:
        return _lengths(block.norm, block.key, shape)
    longest = float(block.key_norm.abs().max()) * shape.head_dim**0.5
    return torch.full((shape.num_kv_heads,), longest)


def _lengths(norm: torch.Tensor, linear: Projection, shape: KvShape) -> torch.Tensor:
    """[Hkv] float32, of what a projection makes."""
    weight: torch.Tensor = linear.weight.float() * norm
    heads = weight.view(shape.num_kv_heads, shape.head_dim, -1)  # [Hkv, D, d]
    gram = torch.bmm(heads, heads.transpose(1, 2)).cpu()  # [Hkv, D, D]
    largest = torch.linalg.eigvalsh(gram)[:, -1].clamp_min(0)
    lengths: torch.Tensor = (largest * heads.shape[-1]).sqrt()
    if linear.bias is None:
        return lengths
    bias: torch.Tensor = linear.bias.float().cpu().view(shape.num_kv_heads, -1)
    offset: torch.Tensor = torch.linalg.vector_norm(bias, dim=-1)
    return lengths + offset
