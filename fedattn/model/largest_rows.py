"""The longest keys, values and queries that the weights of a model can make."""

from collections.abc import Iterable, Sequence

import torch

from fedattn.core.row_bounds import RowBounds
from fedattn.core.types import KvShape
from fedattn.model.projections import Projection, Projections


@torch.inference_mode()
def largest_rows(
    blocks: Iterable[Projections], scales: Sequence[float], shape: KvShape
) -> RowBounds:
    """Bounds on the rows of every block and KV head, and on the queries of every query head.

    A row of a head is W (g * n) + b, where n is the hidden state divided by the root of its mean
    square and g the factors of the norm. |n| <= sqrt(d), so |row| <= sqrt(d) |W diag(g)| + |b| with
    the spectral norm, and there is a direction of n that reaches the first term. A key that is
    normed itself is h * k, |k| <= sqrt(D), so |row| <= sqrt(D) max |h|. Queries are made like keys.

    Args:
        blocks: of every block.
        scales: of every block, by how much RoPE lengthens a key or a query at most.
        shape: of the rows.

    Raises:
        ValueError: some row has no bound, as weights that are damaged make it.
    """
    keys, values, queries = [], [], []
    for block, scale in zip(blocks, scales, strict=True):
        keys.append(_turned(block.norm, block.key, block.key_norm, shape.head_dim) * scale)
        values.append(_lengths(block.norm, block.value, shape.head_dim))
        longest = _turned(block.norm, block.query, block.query_norm, shape.head_dim)
        queries.append(longest * scale * block.scaling)
        if not all(made[-1].isfinite().all() for made in (keys, values, queries)):
            raise ValueError(f"block {len(keys) - 1} makes rows of no finite length")
    return RowBounds(
        keys=torch.stack(keys).numpy(),
        values=torch.stack(values).numpy(),
        queries=torch.stack(queries).numpy(),
    )


def _turned(
    norm: torch.Tensor, linear: Projection, own_norm: torch.Tensor | None, head_dim: int
) -> torch.Tensor:
    """[H] float32 of what RoPE is to turn, which has a norm of its own in some families."""
    if own_norm is None:
        return _lengths(norm, linear, head_dim)
    longest = float(own_norm.abs().max()) * head_dim**0.5
    return torch.full((linear.weight.shape[0] // head_dim,), longest)


def _lengths(norm: torch.Tensor, linear: Projection, head_dim: int) -> torch.Tensor:
    """[H] float32, of what a projection makes; infinite if its weights are not finite."""
    weight: torch.Tensor = linear.weight.float() * norm
    heads = weight.view(-1, head_dim, weight.shape[-1])  # [H, D, d]
    gram = torch.bmm(heads, heads.transpose(1, 2)).cpu()  # [Hkv, D, D]
    if not gram.isfinite().all():
        return torch.full((len(gram),), torch.inf)
    largest = torch.linalg.eigvalsh(gram)[:, -1].clamp_min(0)
    lengths: torch.Tensor = (largest * heads.shape[-1]).sqrt()
    if linear.bias is None:
        return lengths
    bias: torch.Tensor = linear.bias.float().cpu().view(-1, head_dim)
    offset: torch.Tensor = torch.linalg.vector_norm(bias, dim=-1)
    return lengths + offset
