"""Queries that tell rows apart as well as they can, no longer than honest ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedattn.core.types import FloatArray
from fedattn.model.attention import score_factor
from fedattn.model.cache import FederatedCache
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import forward_tokens

_SAMPLE = 192
"""Random tokens that keys and queries are learned from; the attacker needs no text."""
_SMALLEST = 0.02
"""Variance of keys in any direction, as a share of the mean one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryStyle:
    """Which queries are made up.

    Attributes:
        num_tokens: of queries at every block.
        length: of every query, times the median of honest ones of its block and head.
        seed: of all draws.
    """

    num_tokens: int = 20
    length: float = 1.0
    seed: int = 0


class _Sampled(FederatedCache):
    """Remembers how long queries are."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__(model.windows, model.device)
        self.lengths: dict[int, torch.Tensor] = {}

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        """As `FederatedCache.attend`; scaled lengths are kept, [Hq, T] a block."""
        lengths = query[0].float().norm(dim=-1)
        self.lengths[layer] = lengths * score_factor(query, scaling)
        return super().attend(layer, query, key, value, scaling)


@torch.inference_mode()
def chosen_queries(
    model: LoadedModel, prefix: Sequence[int], layers: Sequence[int], style: QueryStyle
) -> dict[int, FloatArray]:
    """Queries in random directions, drawn so that keys differ as much along any of them.

    Args:
        model: the model.
        prefix: token ids of the public prefix.
        layers: blocks to ask at.
        style: how many, and how long.

    Returns:
        [Hq, T, D] float32 a block, scaled.
    """
    random = torch.Generator().manual_seed(style.seed)
    sample = torch.randint(model.sizes.vocab_size, (_SAMPLE,), generator=random).tolist()
    sample = [*prefix, *sample][: model.max_positions]
    cache = _Sampled(model)
    forward_tokens(model, cache, sample, range(len(sample)))
    made = {}
    for layer in layers:
        spread = _evened(cache.layers[layer].keys[0, :, len(prefix) :].float().cpu())
        lengths = cache.lengths[layer].cpu().median(dim=1).values * style.length  # [Hq]
        shape = (len(lengths), style.num_tokens, spread.shape[-1])
        drawn = torch.randn(shape, generator=random)
        drawn = drawn @ spread.repeat_interleave(len(lengths) // len(spread), dim=0)
        drawn *= (lengths[:, None] / drawn.norm(dim=-1))[..., None]
        made[layer] = np.ascontiguousarray(drawn.numpy(), dtype=np.float32)
    return made


def _evened(keys: torch.Tensor) -> torch.Tensor:
    """The inverse root of the covariance of keys [Hkv, N, D], [Hkv, D, D]."""
    apart = keys - keys.mean(dim=1, keepdim=True)
    variances, axes = torch.linalg.eigh(apart.transpose(1, 2) @ apart / keys.shape[1])
    least = _SMALLEST * variances.mean(dim=-1, keepdim=True)
    factors = (variances.clamp_min(0) + least)[:, None].rsqrt()
    evened: torch.Tensor = (axes * factors) @ axes.transpose(1, 2)
    return evened
