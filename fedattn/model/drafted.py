"""Decoding while rows stay with others: tokens are drafted here, then asked about together.

A pass that asks waits for the others at every asked block, whatever number of tokens it has. So a
few tokens are drafted first, by the publisher's own blocks, without asking: in place of what others
would make of a draft's queries comes what they made of similar ones (`recalled.py`). One pass then
takes all drafts, and gives the true distribution after each. Example, certain so far 5:

    drafted from 5              7 8 9
    one pass over 5 7 8 9       chooses 7 8 2, then the draft 9 does not hold
    rows are kept of 5 7 8      the answer goes on from 2

A token is always the one that `TokenChooser` takes from the true distribution, with one draw of its
own generator, drafts or not: an answer is that of decoding token by token, greedy or by the same
seed. Drafts are chosen by a copy of the chooser, with the random numbers that it will use too.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch

from fedattn.core.sampling import SamplingParams
from fedattn.model.decode import AnswerTokens
from fedattn.model.draft_pace import DraftPace
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import PrefillResult, forward_tokens
from fedattn.model.weights.direct import DirectProducts
from fedattn.model.weights.modules import direct_products


@dataclass(slots=True, kw_only=True)
class DraftCounts:
    """What an answer took so far.

    Attributes:
        passes: those that asked others, after the prefill.
        drafted: tokens drafted.
        accepted: drafts that became tokens of the answer.
        draft_s: seconds spent on drafts.
        pass_s: seconds of the passes, waiting included.
    """

    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    draft_s: float = 0.0
    pass_s: float = 0.0


def generate_drafted(  # noqa: PLR0913 - spelt out
    model: LoadedModel,
    prefill: PrefillResult,
    sampling: SamplingParams,
    *,
    pace: DraftPace | None = None,
    counts: DraftCounts | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[int, None, None]:
    """As `generate_tokens`, for a prefill whose cache asks others; extends that cache.

    Graphs that multiply by stored blocks last as long as the iterator: close it to end early.

    Args:
        model: the model.
        prefill: cache and first logits.
        sampling: how to choose.
        pace: how many to draft; None for a new one. One may serve many answers of a node.
        counts: counted up; None for nobody who reads them.
        clock: seconds.

    Raises:
        SessionError: the session has ended.
        UnavailableError: too few participants are left.
    """
    answer = AnswerTokens(model, sampling)
    token = answer.next(prefill.logits)
    if token is None:
        return
    yield token
    run = _Run(model, prefill, answer, pace or DraftPace(), counts or DraftCounts(), clock)
    while answer.steps_left:
        tokens = run.extend(token)
        yield from tokens
        token = tokens[-1] if tokens else token


class _Run:
    """One answer on its way."""

    def __init__(  # noqa: PLR0913, PLR0917 - as `generate_drafted` has them
        self,
        model: LoadedModel,
        prefill: PrefillResult,
        answer: AnswerTokens,
        pace: DraftPace,
        counts: DraftCounts,
        clock: Callable[[], float],
    ) -> None:
        self._model, self._cache = model, prefill.cache
        self._cache.attends_alone = True
        self._position = prefill.next_position
        self._products = DirectProducts()
        self._answer, self._pace, self._counts, self._clock = answer, pace, counts, clock

    @torch.inference_mode()
    def extend(self, token: int) -> list[int]:
        """The next tokens after `token`, whose row is not there yet; at least one, or the end."""
        begin = self._clock()
        drafts = self._draft(token, self._pace.choose(self._answer.steps_left - 1))
        drafted = self._clock()
        logits = self._forward([token, *drafts])
        tokens, num_held = self._choose(logits, drafts)
        self._cache.drop_last(len(drafts) - num_held)
        self._position += 1 + num_held
        self._note(drafts, num_held, drafted - begin, self._clock() - drafted)
        return tokens

    def _draft(self, token: int, most: int) -> list[int]:
        """Tokens that are likely to follow, without an end token."""
        guess, chain = self._answer.guess(most), [token]
        num_rows = 0
        with self._cache.recalling():
            while guess.steps_left:
                logits = self._forward(chain[-1:], after=num_rows)
                num_rows += 1
                following = guess.next(logits[0])
                chain += [] if following is None else [following]
        self._cache.drop_last(num_rows)
        return chain[1:]

    def _forward(self, tokens: list[int], after: int = 0) -> torch.Tensor:
        """[T, V] float32 logits after each; the rows of so many drafts come before them."""
        start = self._position + after
        positions = range(start, start + len(tokens))
        with direct_products(self._products):
            hidden = forward_tokens(self._model, self._cache, tokens, positions)
            logits: torch.Tensor = self._model.head(hidden).float()
        return logits

    def _choose(self, logits: torch.Tensor, drafts: list[int]) -> tuple[list[int], int]:
        """Tokens of the answer by logits after each token of a pass, and how many drafts held."""
        tokens: list[int] = []
        for row, draft in zip(logits, [*drafts, None], strict=True):
            token = self._answer.next(row)
            if token is None:
                break
            tokens.append(token)
            if token != draft:
                return tokens, len(tokens) - 1
        return tokens, min(len(tokens), len(drafts))

    def _note(self, drafts: list[int], num_held: int, draft_s: float, pass_s: float) -> None:
        counts = self._counts
        counts.passes += 1
        counts.drafted += len(drafts)
        counts.accepted += num_held
        counts.draft_s += draft_s
        counts.pass_s += pass_s
        if drafts:
            self._pace.drafted(len(drafts), draft_s)
        self._pace.verified(len(drafts), num_held, pass_s)
