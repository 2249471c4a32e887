"""KV rows that candidate tokens would have, many at once, behind rows that are known."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
import torch

from fedattn.core.types import FloatArray
from fedattn.model.attention import run_model
from fedattn.model.cache import LayerCache
from fedattn.model.loading import LoadedModel

_BATCH = 512
"""Candidates in one forward pass: large enough for the processor, small enough for memory."""
_TINY = 1e-12


class _AllRowsSeen(Exception):  # noqa: N818 - control flow, not an error
    """Ends the forward pass where no higher block is compared."""


class CandidateView:
    """A `KvView` whose queries are alternatives: each sees the known rows and itself.

    Args:
        known: rows of every block, at earlier positions.
        layers: blocks whose rows are wanted; the pass ends at the highest.

    Attributes:
        rows: [2, Hkv, C, D] a block, keys after RoPE and values of the C candidates.
    """

    def __init__(self, known: Sequence[LayerCache], layers: Sequence[int]) -> None:
        self._known, self._layers = known, frozenset(layers)
        self.rows: dict[int, torch.Tensor] = {}

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        """As `KvView.attend`, for C candidates in place of T tokens."""
        if layer in self._layers:
            self.rows[layer] = torch.cat([key, value]).float()
        if layer == max(self._layers):
            raise _AllRowsSeen
        known = self._known[layer]
        heads, size = key.shape[1], key.shape[3]
        grouped = query[0].reshape(heads, -1, query.shape[2], size)  # [Hkv, Hq / Hkv, C, D]
        scores = grouped @ known.keys[0, :, None].transpose(-1, -2)  # [Hkv, Hq / Hkv, C, S]
        own = (grouped * key[0, :, None]).sum(-1, keepdim=True)  # [Hkv, Hq / Hkv, C, 1]
        scale = size**-0.5 if scaling is None else scaling
        weights = torch.softmax(torch.cat([scores, own], -1) * scale, dim=-1)
        seen = weights[..., :-1] @ known.values[0, :, None]
        return (seen + weights[..., -1:] * value[0, :, None]).flatten(0, 1)[None]


@torch.inference_mode()
def candidate_rows(
    model: LoadedModel,
    known: Sequence[LayerCache],
    candidates: torch.Tensor,
    position: int,
    layers: Sequence[int],
) -> dict[int, torch.Tensor]:
    """The rows each candidate would have at a position; runs no block above the highest.

    Args:
        model: the model.
        known: rows of every block at earlier positions.
        candidates: [C] int64 token ids.
        position: global position of all of them.
        layers: blocks whose rows are wanted, at least one.

    Returns:
        [2, Hkv, C, D] float32 a block: keys after RoPE, and values.
    """
    view = CandidateView(known, layers)
    with suppress(_AllRowsSeen):
        run_model(model.backbone, candidates, torch.full_like(candidates, position), view)
    return view.rows


def distances(
    computed: Mapping[int, torch.Tensor], received: Mapping[int, FloatArray]
) -> torch.Tensor:
    """How far each candidate is from the received row, [C] float32.

    The geometric mean, over blocks, heads, K and V, of Euclidean distances: the order of the
    likelihoods if each of these parts had Gaussian errors of a size unknown to the attacker.

    Args:
        computed: [2, Hkv, C, D] a block.
        received: [2, Hkv, D] a block, the same blocks.
    """
    logs = []
    for layer, row in received.items():
        given = torch.from_numpy(np.ascontiguousarray(row)).to(computed[layer].device)
        apart = (computed[layer] - given[:, :, None]).norm(dim=-1)  # [2, Hkv, C]
        logs.append((apart + _TINY).log().flatten(0, 1))
    return torch.cat(logs).mean(dim=0).exp()


def ranked(candidates: torch.Tensor, far: torch.Tensor) -> tuple[int, float]:
    """The nearest candidate, and the gap: 1 - its distance / that of the second nearest.

    The gap is 1 for an exact hit, 0 for a tie or where there is no second one.
    """
    order = far.argsort()[:2]
    first, last = far[order[0]], far[order[-1]]
    return int(candidates[order[0]]), float(1 - first / last)


def split_batches(candidates: torch.Tensor) -> list[torch.Tensor]:
    """Candidates in batches of one forward pass each, in their order."""
    starts = range(0, len(candidates), _BATCH)
    return [candidates[start : start + _BATCH] for start in starts]
