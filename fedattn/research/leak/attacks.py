"""Recovering the tokens of a text from the rows that its owner sent.

The attacker has the model's weights, the public prefix, and the rows as they are decoded.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from fedattn.model.cache import FederatedCache
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import forward_tokens
from fedattn.research.leak.candidates import candidate_rows, distances, ranked, split_batches
from fedattn.research.leak.received import Received, TokenRows, by_token


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much an attacker computes.

    Attributes:
        num_candidates: tokens tried at a position, likeliest first by the model itself; None for
            all there are.
        num_blocks: lowest blocks whose rows are compared.
        enough: no more candidates are tried once the gap to the second nearest is so large;
            above 1 for never.
        num_rows: tokens behind a withheld piece whose rows are compared.
    """

    num_candidates: int | None = None
    num_blocks: int = 1
    enough: float = 2.0
    num_rows: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What one attack made of one text.

    Attributes:
        truth: token ids that it should have found.
        found: token ids that it found, in the same places.
        gaps: of each row that was compared: 1 - distance of the nearest candidate / distance of
            the second nearest.
        seconds: wall time.
    """

    truth: tuple[int, ...]
    found: tuple[int, ...]
    gaps: tuple[float, ...]
    seconds: float

    @property
    def num_right(self) -> int:
        return sum(a == b for a, b in zip(self.truth, self.found, strict=True))


def look_up(model: LoadedModel, received: Received) -> Recovery | None:
    """Compare rows of block 0 with those of every token of the vocabulary.

    A row there follows from a token and its position alone, and keys of one position turn into
    those of another, so one table serves all. Rows that did not travel are left at token 0.

    Returns:
        None if block 0 does not travel.
    """
    if 0 not in received.rows:
        return None
    begun = time.monotonic()
    rows = received.rows[0]
    vocabulary = torch.arange(model.sizes.vocab_size, device=model.device)
    cache = FederatedCache(model.windows, model.device)
    tables = [
        candidate_rows(model, cache.layers, batch, 0, [0])[0] for batch in split_batches(vocabulary)
    ]
    table = {0: torch.cat(tables, dim=2)}
    keys = model.rotaries[0].undo(rows.keys, rows.positions)
    found, gaps = [0] * len(received.truth), []
    for position, token_rows in by_token(replace(rows, keys=keys)).items():
        token, gap = ranked(vocabulary, distances(table, {0: token_rows}))
        found[position - received.span.start] = token
        gaps.append(gap)
    return Recovery(
        truth=received.truth,
        found=tuple(found),
        gaps=tuple(gaps),
        seconds=time.monotonic() - begun,
    )


def replay(model: LoadedModel, received: Received, effort: Effort, *, skip: int = 0) -> Recovery:
    """Try tokens one position after the other, behind what was found so far.

    Where no compared block has a row, the likeliest token is taken. What was found wrongly stays,
    and spoils the rows computed behind it.

    Args:
        model: the model.
        received: prefix and rows.
        effort: how much is tried.
        skip: first tokens of the text of which nothing is known, neither rows nor tokens. The
            attack begins behind them, as if the public prefix came right before.
    """
    begun = time.monotonic()
    walk = _Walk(model, received, effort)
    found, gaps = [], []
    for position in range(received.span.start + skip, received.span.stop):
        token, gap = walk.step(position)
        found.append(token)
        gaps += [] if gap is None else [gap]
    return Recovery(
        truth=received.truth[skip:],
        found=tuple(found),
        gaps=tuple(gaps),
        seconds=time.monotonic() - begun,
    )


class _Walk:
    """The state of a replay: rows of every block for prefix and found tokens."""

    def __init__(self, model: LoadedModel, received: Received, effort: Effort) -> None:
        self._model, self._effort = model, effort
        self._rows = {
            layer: by_token(received.rows[layer])
            for layer in sorted(received.rows)[: effort.num_blocks]
        }
        self._cache = FederatedCache(model.windows, model.device)
        self._logits = self._extend(received.prefix, range(len(received.prefix)))

    def step(self, position: int) -> tuple[int, float | None]:
        """The token at a position, and the gap if a row was compared."""
        received = self._received_at(position)
        token, gap = int(self._logits.argmax()), None
        if received:
            token, gap = self._nearest(received, position)
        self._logits = self._extend([token], [position])
        return token, gap

    def _nearest(self, received: dict[int, TokenRows], position: int) -> tuple[int, float]:
        tried = self._logits.argsort(descending=True)[: self._effort.num_candidates]
        known, far = self._cache.layers, torch.empty(0, device=tried.device)
        for batch in split_batches(tried):
            computed = candidate_rows(self._model, known, batch, position, list(received))
            far = torch.cat([far, distances(computed, received)])
            best = ranked(tried[: len(far)], far)
            if best[1] >= self._effort.enough:
                break
        return best

    def _received_at(self, position: int) -> dict[int, TokenRows]:
        """By block, where one that is compared has any row of the token."""
        return {layer: rows[position] for layer, rows in self._rows.items() if position in rows}

    @torch.inference_mode()
    def _extend(self, token_ids: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Logits [V] after more tokens."""
        hidden = forward_tokens(self._model, self._cache, list(token_ids), positions)
        logits: torch.Tensor = self._model.head(hidden[-1:])[0].float()
        return logits
