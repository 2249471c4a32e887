"""Decoding the answer from the publisher's cache. Needs no network."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from fedattn.core.errors import ModelError
from fedattn.core.sampling import NO_REPETITION_PENALTY, SamplingParams
from fedattn.model.cache import FederatedCache
from fedattn.model.hugging_face import (
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import PrefillResult, forward_tokens

S = TypeVar("S")


class TokenChooser:
    """Picks the tokens of one answer from logits: greedy, or a seeded draw.

    Remembers what it chose, which is all that counts as repeated.
    """

    def __init__(self, sampling: SamplingParams, device: torch.device) -> None:
        self._is_greedy = sampling.is_greedy
        self._generator = torch.Generator(device=device).manual_seed(sampling.seed)
        self._processors = _processors(sampling)
        self._chosen: list[int] = []

    def choose(self, logits: torch.Tensor) -> int:
        """The next token id for logits [V].

        Raises:
            ModelError: they are no numbers, so that any choice would be noise.
        """
        if not (largest := logits.max()).isfinite():
            raise ModelError(
                f"logits after {len(self._chosen)} tokens of the answer: expected finite numbers, "
                f"got {float(largest)}; start this node with --decode-weights float32, and if that "
                f"does not help, with --weights float32 or another --model"
            )
        scores = logits
        if self._processors:
            chosen = torch.tensor([self._chosen], dtype=torch.int64, device=logits.device)
            scores = self._processors(chosen, logits[None])[0]
        self._chosen.append(int(scores.argmax() if self._is_greedy else self._draw(scores)))
        return self._chosen[-1]

    def _draw(self, scores: torch.Tensor) -> torch.Tensor:
        probabilities = torch.softmax(scores, dim=-1)
        return torch.multinomial(probabilities, 1, generator=self._generator)


def _processors(sampling: SamplingParams) -> LogitsProcessorList:
    """What changes logits before a token is chosen, in the order of transformers' `generate`.

    None bans an end token, since that is never part of an answer; so a choice always remains.
    """
    processors = LogitsProcessorList()
    if sampling.repetition_penalty != NO_REPETITION_PENALTY:
        penalty = float(sampling.repetition_penalty)
        processors.append(RepetitionPenaltyLogitsProcessor(penalty))
    if sampling.no_repeat_ngram_size > 0:
        processors.append(NoRepeatNGramLogitsProcessor(sampling.no_repeat_ngram_size))
    if not sampling.is_greedy:
        processors.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_k > 0:
            processors.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1.0:
            processors.append(TopPLogitsWarper(sampling.top_p))
    return processors


class Decoder(Protocol[S]):
    """Runs single tokens after prefills. Stateless itself: many answers may share one."""

    def begin(self, prefill: PrefillResult, room: int) -> S:
        """The state that `step` extends.

        Args:
            prefill: what to decode from.
            room: steps at most.
        """

    def step(self, states: Sequence[S], tokens: Sequence[int]) -> torch.Tensor:
        """Decode a token of each of N answers.

        Args:
            states: of N >= 1 different answers; each is extended.
            tokens: N token ids.

        Returns:
            [N, V] float32, logits for the tokens after these.
        """


@dataclass(slots=True)
class CacheState:
    """State of a `TransformersDecoder`.

    Attributes:
        cache: of the prefill; grows.
        position: of the next token.
    """

    cache: FederatedCache
    position: int


class TransformersDecoder:
    """`Decoder` by the blocks of transformers, on any device; extends the prefill's own cache.

    Answers go through the blocks one after the other.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def begin(self, prefill: PrefillResult, room: int) -> CacheState:  # noqa: ARG002 - grows
        return CacheState(prefill.cache, prefill.next_position)

    @torch.inference_mode()
    def step(self, states: Sequence[CacheState], tokens: Sequence[int]) -> torch.Tensor:
        hidden = torch.cat(
            [self._run(state, token) for state, token in zip(states, tokens, strict=True)]
        )
        logits: torch.Tensor = self._model.head(hidden).float()
        return logits

    def _run(self, state: CacheState, token: int) -> torch.Tensor:
        hidden = forward_tokens(self._model, state.cache, [token], [state.position])
        state.position += 1
        return hidden


MakeDecoder = Callable[[], Decoder[Any]]


class AnswerTokens:
    """The tokens of one answer as logits come: which, and when it ends."""

    def __init__(self, model: LoadedModel, sampling: SamplingParams) -> None:
        self._chooser = TokenChooser(sampling, model.device)
        self._end_token_ids = model.end_token_ids
        self.steps_left = sampling.max_new_tokens

    def next(self, logits: torch.Tensor) -> int | None:
        """The token for logits [V]; None for an end token, which is no part of the answer.

        Afterwards `steps_left` says how many more may follow.

        Raises:
            ModelError: as `TokenChooser.choose`.
        """
        token = self._chooser.choose(logits)
        if token in self._end_token_ids:
            self.steps_left = 0
            return None
        self.steps_left -= 1
        return token

    def guess(self, count: int) -> "AnswerTokens":
        """Tokens that may follow, at most so many; it goes on as this one would, which stays as it
        is: with the same choices behind it and the same random numbers before it.
        """
        other = deepcopy(self)
        other.steps_left = min(count, self.steps_left)
        return other


def generate_tokens(
    model: LoadedModel,
    prefill: PrefillResult,
    sampling: SamplingParams,
    make_decoder: MakeDecoder | None = None,
) -> Iterator[int]:
    """Decode one answer, token by token; ends before an end token or after `max_new_tokens`.

    Args:
        model: the model.
        prefill: cache and first logits.
        sampling: how to choose.
        make_decoder: what runs the blocks, None for `TransformersDecoder`; asked for once the
            first token, which needs none, is out.

    Raises:
        ModelError: its logits are no numbers, or the decoder cannot hold its rows.
    """
    answer = AnswerTokens(model, sampling)
    token = answer.next(prefill.logits)
    if token is None:
        return
    yield token
    if not answer.steps_left:
        return
    decoder = make_decoder() if make_decoder else TransformersDecoder(model)
    state = decoder.begin(prefill, answer.steps_left)
    while answer.steps_left:
        token = answer.next(decoder.step([state], [token])[0])
        if token is None:
            return
        yield token


@torch.inference_mode()
def answer_log_probs(model: LoadedModel, prefill: PrefillResult, answer: list[int]) -> torch.Tensor:
    """Log-probabilities along an answer, teacher-forced; leaves the cache as it was.

    Args:
        model: the model.
        prefill: cache and first logits.
        answer: A >= 1 token ids.

    Returns:
        [A, V] float32 of the distribution before each token.
    """
    logits = prefill.logits[None]
    if len(answer) > 1:
        start = prefill.next_position
        positions = range(start, start + len(answer) - 1)
        hidden = forward_tokens(model, prefill.cache, answer[:-1], positions)
        prefill.cache.drop_last(len(answer) - 1)
        logits = torch.cat([logits, model.head(hidden).float()])
    return torch.log_softmax(logits, dim=-1)


def answer_nll(model: LoadedModel, prefill: PrefillResult, answer: list[int]) -> float:
    """Mean negative log-likelihood of answer tokens, nats a token; as `answer_log_probs`."""
    log_probs = answer_log_probs(model, prefill, answer)
    target = torch.tensor(answer, dtype=torch.int64, device=log_probs.device)
    return float(torch.nn.functional.nll_loss(log_probs, target))
