"""The longest keys and values that the weights of a model can make."""

from typing import Any

import torch

from fedattn.core.row_bounds import RowBounds
from fedattn.core.types import KvShape
from fedattn.model.families import BlockReader, FusedBlock


@torch.inference_mode()
def largest_rows(backbone: Any, shape: KvShape, read_block: BlockReader | None) -> RowBounds:
    """Bounds on the rows of every block and KV head.

    A row of a head is W (g * n) + b, where n is the hidden state divided by the root of its mean
    square and g the weight of the norm. |n| <= sqrt(d), so |row| <= sqrt(d) |W diag(g)| + |b| with
    the spectral norm, and there is a direction of n that reaches the first term.

    Args:
        backbone: the blocks.
        shape: of its rows.
        read_block: finds the modules of a block; None if nothing is known of them.
    """
    if read_block is None:
        return RowBounds.unbounded(shape)
    scale = float(backbone.rotary_emb.attention_scaling)  # of keys, besides the rotation
    blocks = [read_block(layer) for layer in backbone.layers]
    keys = torch.stack([_lengths(block, 1, shape) for block in blocks]) * scale
    values = torch.stack([_lengths(block, 2, shape) for block in blocks])
    return RowBounds(keys=keys.numpy(), values=values.numpy())


def _lengths(block: FusedBlock, which: int, shape: KvShape) -> torch.Tensor:
    """[Hkv] float32, of keys (1) or values (2)."""
    linear = block.query_key_value[which]
    weight: torch.Tensor = linear.weight.float() * block.norm.weight.float()
    heads = weight.view(shape.num_kv_heads, shape.head_dim, -1)  # [Hkv, D, d]
    gram = torch.bmm(heads, heads.transpose(1, 2)).cpu()  # [Hkv, D, D]
    largest = torch.linalg.eigvalsh(gram)[:, -1].clamp_min(0)
    lengths: torch.Tensor = (largest * heads.shape[-1]).sqrt()
    if linear.bias is None:
        return lengths
    bias: torch.Tensor = linear.bias.float().cpu().view(shape.num_kv_heads, -1)
    offset: torch.Tensor = torch.linalg.vector_norm(bias, dim=-1)
    return lengths + offset
