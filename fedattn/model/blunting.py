"""Answers to queries that say less of single rows: flatter attention, and noise."""

import numpy as np
import torch

from fedattn.core.asked import UNSEEN, PartialAttention
from fedattn.core.types import FloatArray
from fedattn.model.attending import attend_partly
from fedattn.model.layer_cache import LayerCache

_HALVINGS = 12
_SLACK = 1e-3
"""Of a flattened query's rows, as a share."""


def attend_bluntly(
    query: torch.Tensor,
    rows: LayerCache,
    positions: torch.Tensor,
    window: int | None,
    least_rows: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `attend_partly` of scaled queries, spread over so many rows at least.

    A query whose attention has an entropy below log(least_rows) is shortened until it has that
    much, which is a higher temperature; one that sees fewer rows sees them all alike. The lse
    stays as of the full query, so the part weighs as much among the others as it did.

    Args:
        query: [1, Hq, T, D] after RoPE, scaled.
        rows: that stay here, without `others`.
        positions: [T] int64 of the queries.
        window: as for `attend_partly`.
        least_rows: at least 1, which changes nothing.
    """
    output, lse = attend_partly(query, rows, positions, window, 1.0)
    if least_rows == 1:
        return output, lse
    enough = torch.full_like(lse, least_rows).log()
    is_sharp = (_entropy(query, rows, positions, window) < enough) & (lse > float(UNSEEN))
    if not is_sharp.any():
        return output, lse
    low, high = torch.zeros_like(lse), torch.ones_like(lse)  # factors on the queries, [1, Hq, T]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        is_flat = _entropy(query * middle[..., None], rows, positions, window) >= enough - _SLACK
        low, high = torch.where(is_flat, middle, low), torch.where(is_flat, high, middle)
    flattened, _ = attend_partly(query * low[..., None], rows, positions, window, 1.0)
    return torch.where(is_sharp[..., None], flattened, output), lse


def add_noise(
    part: PartialAttention, rows: LayerCache, noise: float, random: np.random.Generator
) -> PartialAttention:
    """Gaussian noise on what is seen of any row.

    Args:
        part: what queries made of the rows.
        rows: that stay here.
        noise: standard deviation: on outputs, times the root mean square of the values of the
            head; on lse, in nats.
        random: draws.
    """
    sizes = rows.values[0].float().square().mean(dim=(1, 2)).sqrt().numpy()  # [Hkv]
    by_head = np.repeat(sizes, len(part.lse) // len(sizes))[:, None, None]
    seen = (part.lse > UNSEEN).astype(np.float32)
    output = part.output + seen[..., None] * by_head * _drawn(part.output, noise, random)
    return PartialAttention(output=output, lse=part.lse + seen * _drawn(part.lse, noise, random))


def _drawn(like: FloatArray, noise: float, random: np.random.Generator) -> FloatArray:
    drawn: FloatArray = np.float32(noise) * random.standard_normal(like.shape, dtype=np.float32)
    return drawn


def _entropy(
    query: torch.Tensor, rows: LayerCache, positions: torch.Tensor, window: int | None
) -> torch.Tensor:
    """Of the attention of scaled queries, [1, Hq, T] float32 nats.

    It is lse less the mean score, and the mean score is that of the mean key.
    """
    keys = LayerCache(rows.keys, rows.keys, rows.positions)
    mean_key, lse = attend_partly(query, keys, positions, window, 1.0)
    return lse - (query.float() * mean_key).sum(dim=-1)
