"""KV rows that candidates would have, many at once, behind rows that are known."""

from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

import torch

from fedattn.model.attention import run_model
from fedattn.model.layer_cache import LayerCache
from fedattn.model.loading import LoadedModel
from fedattn.model.positions import visible
from fedattn.research.leak.received import TokenRows

_BATCH = 512
"""Tokens in one forward pass: large enough for the processor, small enough for memory."""
_TINY = 1e-12
Place = TypeVar("Place", bound=Hashable)
"""What tells rows apart: a block, or a block and a position."""


class _AllRowsSeen(Exception):  # noqa: N818 - control flow, not an error
    """Ends the forward pass where no higher block is compared."""


class CandidateView:
    """A `KvView` of C alternatives, W tokens each, one after the other.

    Each token sees the known rows, and those of its own candidate up to itself.

    Args:
        known: rows of every block, at earlier positions.
        windows: of every block.
        layers: blocks whose rows are wanted; the pass ends at the highest.
        positions: [W] int64 of the tokens of each.

    Attributes:
        rows: [2, Hkv, C * W, D] a block, keys after RoPE and values.
    """

    def __init__(
        self,
        known: Sequence[LayerCache],
        windows: Sequence[int | None],
        layers: Sequence[int],
        positions: torch.Tensor,
    ) -> None:
        self._known, self.windows, self._layers = known, windows, frozenset(layers)
        self._positions, self._width = positions, len(positions)
        self.rows: dict[int, torch.Tensor] = {}

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        """As `KvView.attend`, for C * W tokens in place of T."""
        if layer in self._layers:
            self.rows[layer] = torch.cat([key, value]).float()
        if layer == max(self._layers):
            raise _AllRowsSeen
        known = self._known[layer]
        heads, size, width = key.shape[1], key.shape[3], self._width
        grouped = query[0].reshape(heads, -1, query.shape[2], size)  # [Hkv, Hq / Hkv, C * W, D]
        by_candidate = (heads, -1, query.shape[2] // width, width, size)
        own_keys, own_values = key[0].reshape(by_candidate), value[0].reshape(by_candidate)
        scores = grouped @ known.keys[0, :, None].transpose(-1, -2)  # [Hkv, Hq / Hkv, C * W, S]
        at, window = self._positions, self.windows[layer]
        seen_known = visible(at, known.positions, window).repeat(query.shape[2] // width, 1)
        scores = scores.masked_fill(~seen_known, -torch.inf)
        own = grouped.reshape(by_candidate) @ own_keys.transpose(-1, -2)
        own = own.masked_fill(~visible(at, at, window), -torch.inf).flatten(
            2, 3
        )  # [Hkv, Hq / Hkv, C * W, W]
        scale = size**-0.5 if scaling is None else scaling
        weights = torch.softmax(torch.cat([scores, own], -1) * scale, dim=-1)
        seen = weights[..., :-width] @ known.values[0, :, None]
        among = weights[..., -width:].reshape(*by_candidate[:-1], width) @ own_values
        attended: torch.Tensor = (seen + among.flatten(2, 3)).flatten(0, 1)[None]
        return attended


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
    rows = continuation_rows(model, known, candidates[:, None], position, layers)
    return {layer: of_layer[:, :, :, 0] for layer, of_layer in rows.items()}


@torch.inference_mode()
def continuation_rows(
    model: LoadedModel,
    known: Sequence[LayerCache],
    candidates: torch.Tensor,
    start: int,
    layers: Sequence[int],
) -> dict[int, torch.Tensor]:
    """The rows each of C continuations would have; runs no block above the highest.

    Args:
        model: the model.
        known: rows of every block at all earlier positions.
        candidates: [C, W] int64 token ids.
        start: global position of the first of the W tokens.
        layers: blocks whose rows are wanted, at least one.

    Returns:
        [2, Hkv, C, W, D] float32 a block: keys after RoPE, and values.
    """
    count, width = candidates.shape
    at = torch.arange(start, start + width, device=candidates.device)
    view = CandidateView(known, model.windows, layers, at)
    with suppress(_AllRowsSeen):
        run_model(model.backbone, candidates.flatten(), at.repeat(count), view)
    return {
        layer: rows.reshape(*rows.shape[:2], count, width, -1) for layer, rows in view.rows.items()
    }


def distances(
    computed: Mapping[Place, torch.Tensor], received: Mapping[Place, TokenRows]
) -> torch.Tensor:
    """How far each candidate is from the received rows, [C] float32.

    The geometric mean, over tokens, heads whose row came, K and V, of Euclidean distances: the
    order of the likelihoods if each of these parts had Gaussian errors of a size unknown to the
    attacker.

    Args:
        computed: [2, Hkv, C, D] of a token.
        received: of the same tokens.
    """
    logs = []
    for place, token in received.items():
        given = torch.from_numpy(token.rows).to(computed[place].device)
        apart = (computed[place][:, token.heads] - given[:, :, None]).norm(dim=-1)  # [2, H, C]
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
    """Candidates, [C] or [C, W], in batches of one forward pass each, in their order."""
    size = max(1, _BATCH * candidates.shape[0] // candidates.numel())
    return [candidates[start : start + size] for start in range(0, len(candidates), size)]
