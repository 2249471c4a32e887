"""Guessing a withheld piece from the rows behind it, which have attended to it.

The worst case: the attacker knows the rest of the text, before and behind, and the form of what
is missing. It computes the rows behind the piece for every candidate, and compares those that
travelled. The first pass looks at one row of one block; later ones at more rows and blocks, for
candidates that are still possible.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from fedattn.core.types import FloatArray, IntArray
from fedattn.model.cache import FederatedCache
from fedattn.model.layer_cache import LayerCache
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import forward_tokens
from fedattn.research.leak.attacks import Effort
from fedattn.research.leak.candidates import continuation_rows, distances, split_batches
from fedattn.research.leak.pieces import Piece
from fedattn.research.leak.received import Received
from fedattn.research.leak.rounding import RoundedRow, rounded_rows, to_rounded

Place = tuple[int, int]
"""A block and a position."""
Rows = Mapping[Place, RoundedRow]
_KEPT_SHARE = 0.1
"""Of the candidates of a pass at least so many enter the next one, the best ones."""
_POSSIBLE = 0.003
"""So do all that have at most this share of scalars more out of reach than the best one has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What the attack made of one piece.

    Attributes:
        truth: token ids of the piece.
        found: token ids of the best candidate.
        num_candidates: how many were tried.
        num_rows: rows that were compared, over all blocks; with none all candidates are alike.
        rank: of the truth, from 1. Scalars that the codec cannot have made of a candidate's rows
            count first, then the distance. Of candidates that are alike the truth comes last.
        rank_by_distance: of the truth, by distance alone, in the first pass.
        margin: share of the scalars that the second best candidate has more out of reach than
            the best one.
        seconds: wall time.
    """

    truth: tuple[int, ...]
    found: tuple[int, ...]
    num_candidates: int
    num_rows: int
    rank: int
    rank_by_distance: int
    margin: float
    seconds: float

    @property
    def num_right(self) -> int:
        """Tokens of the best candidate that are the truth's."""
        return sum(a == b for a, b in zip(self.truth, self.found, strict=True))


def guess(model: LoadedModel, received: Received, piece: Piece, effort: Effort) -> Guess:
    """Try every candidate for a withheld piece.

    Args:
        model: the model.
        received: prefix and rows; of its truth the attack uses what is outside of the piece.
        piece: what is withheld, and the candidates.
        effort: how many blocks and rows the last pass compares.
    """
    begun = time.monotonic()
    rows = _compared(model, received, piece, effort)
    trial = _Trial(model, received, piece)
    first, *later = _passes(rows)
    chosen = np.arange(len(piece.candidates))
    scores = trial.run(chosen, first)
    by_distance = _Scores(impossible=np.zeros_like(scores.impossible), far=scores.far)
    for compared in later:
        chosen = scores.possible(len(chosen))
        scores = scores.refined(chosen, trial.run(chosen, compared))
    best, second = scores.order(piece.truth)[:2]
    return Guess(
        truth=piece.candidates[piece.truth],
        found=piece.candidates[best],
        num_candidates=len(piece.candidates),
        num_rows=len(rows),
        rank=scores.rank(piece.truth),
        rank_by_distance=by_distance.rank(piece.truth),
        margin=float(scores.impossible[second] - scores.impossible[best]),
        seconds=time.monotonic() - begun,
    )


def _compared(
    model: LoadedModel, received: Received, piece: Piece, effort: Effort
) -> dict[Place, RoundedRow]:
    """Rows right behind the piece that travelled, at the lowest blocks."""
    behind = received.span.start + piece.stop
    window = range(behind, min(behind + effort.num_rows, received.span.stop))
    return {
        (layer, position): row
        for layer in sorted(received.rows)[: effort.num_blocks]
        for position, row in rounded_rows(model, received, layer, window).items()
    }


def _passes(rows: Rows) -> list[Rows]:
    """What each pass compares: the nearest row of the lowest block, all of that block, all."""
    ordered = dict(sorted(rows.items()))
    lowest = {place: row for place, row in ordered.items() if place[0] == min(ordered)[0]}
    passes: list[Rows] = [dict(list(lowest.items())[:1]), lowest, ordered]
    return passes[:1] + [rows for before, rows in pairwise(passes) if len(rows) > len(before)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scores:
    """Of C candidates; small is good.

    Attributes:
        impossible: [C] share of the scalars that their codec cannot have made of the candidate's;
            1 more for each pass that a candidate did not enter.
        far: [C] distances.
    """

    impossible: FloatArray
    far: FloatArray

    def order(self, last: int) -> list[int]:
        """Candidates, best first; of those that are alike, `last` comes last."""
        is_last = np.arange(len(self.far)) == last
        order: list[int] = np.lexsort((is_last, self.far, self.impossible)).tolist()
        return order

    def rank(self, candidate: int) -> int:
        """From 1."""
        return 1 + self.order(candidate).index(candidate)

    def possible(self, num_tried: int) -> IntArray:
        """Candidates that deserve another pass, of so many in the last one."""
        best = np.lexsort((self.far, self.impossible))[: 1 + int(_KEPT_SHARE * num_tried)]
        close = np.flatnonzero(self.impossible <= self.impossible.min() + _POSSIBLE)
        return np.union1d(best, close)

    def refined(self, chosen: IntArray, scores: "_Scores") -> "_Scores":
        """With other scores for some candidates, which go before all others."""
        impossible, far = self.impossible + 1, self.far.copy()
        impossible[chosen], far[chosen] = scores.impossible, scores.far
        return _Scores(impossible=impossible, far=far)


class _Trial:
    """Runs candidates for one piece."""

    def __init__(self, model: LoadedModel, received: Received, piece: Piece) -> None:
        self._model, self._codec = model, received.codec
        self._start = received.span.start + piece.start
        self._candidates = torch.tensor(piece.candidates, device=model.device)
        self._behind = torch.tensor(received.truth[piece.stop :], device=model.device)
        self._known = self._compute_known([*received.prefix, *received.truth[: piece.start]])

    def run(self, chosen: IntArray, rows: Rows) -> _Scores:
        """Scores of some candidates; all 0 if no row is compared."""
        if not rows:
            nothing = np.zeros(len(chosen), dtype=np.float32)
            return _Scores(impossible=nothing, far=nothing)
        pieces = self._candidates[torch.from_numpy(chosen).to(self._candidates.device)]
        last = max(position for _, position in rows)
        behind = self._behind[: last + 1 - self._start - pieces.shape[1]]
        tried = torch.cat([pieces, behind.expand(len(pieces), -1)], dim=1)
        scored = [self._score(batch, rows) for batch in split_batches(tried)]
        impossible, far = (torch.cat(parts).cpu().numpy() for parts in zip(*scored, strict=True))
        return _Scores(impossible=impossible, far=far)

    def _score(self, tried: torch.Tensor, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        layers = sorted({layer for layer, _ in rows})
        found = continuation_rows(self._model, self._known, tried, self._start, layers)
        computed = {
            (layer, position): to_rounded(
                self._model.rotaries[layer],
                self._codec,
                found[layer][:, :, :, position - self._start],
                position,
            )
            for layer, position in rows
        }
        impossible = [row.share_impossible(computed[place]) for place, row in rows.items()]
        far = distances(computed, {place: row.token for place, row in rows.items()})
        return torch.stack(impossible).mean(dim=0), far

    @torch.inference_mode()
    def _compute_known(self, token_ids: list[int]) -> list[LayerCache]:
        cache = FederatedCache(self._model.windows, self._model.device)
        forward_tokens(self._model, cache, token_ids, range(len(token_ids)))
        return cache.layers
