"""Decoding the answer from the publisher's cache. Needs no network."""

from collections.abc import Callable, Generator, Iterator

import torch
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from fedattn.core.sampling import SamplingParams
from fedattn.model.fused import FusedDecoder
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import PrefillResult, forward_tokens

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TokenChooser:
    """Picks the next token from logits: greedy, or a seeded draw."""

    def __init__(self, sampling: SamplingParams, device: torch.device) -> None:
        self._sampling = sampling
        self._generator = torch.Generator(device=device).manual_seed(sampling.seed)
        self._warpers = LogitsProcessorList()
        if not sampling.is_greedy:
            self._warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
            if sampling.top_k > 0:
                self._warpers.append(TopKLogitsWarper(sampling.top_k))
            if sampling.top_p < 1.0:
                self._warpers.append(TopPLogitsWarper(sampling.top_p))

    def choose(self, logits: torch.Tensor) -> int:
        """The next token id for logits [V]."""
        if self._sampling.is_greedy:
            return int(logits.argmax())
        no_ids = torch.empty((1, 0), dtype=torch.int64, device=logits.device)
        scores = self._warpers(no_ids, logits[None])
        probabilities = torch.softmax(scores[0], dim=-1)
        return int(torch.multinomial(probabilities, 1, generator=self._generator))


def generate_tokens(
    model: LoadedModel,
    prefill: PrefillResult,
    sampling: SamplingParams,
    make_decoder: Callable[[], FusedDecoder | None] = lambda: None,
) -> Iterator[int]:
    """Decode token by token; ends before an end token or after `max_new_tokens`.

    Args:
        model: the model.
        prefill: cache and first logits; without a decoder the cache grows.
        sampling: how to choose.
        make_decoder: what runs the blocks, None for those of transformers; asked for once the
            first token, which needs none, is out.
    """
    chooser = TokenChooser(sampling, model.device)
    logits = prefill.logits
    following = _following_logits(model, prefill, make_decoder, sampling.max_new_tokens)
    next(following)
    for step in range(sampling.max_new_tokens):
        token = chooser.choose(logits)
        if token in model.end_token_ids:
            return
        yield token
        if step + 1 < sampling.max_new_tokens:
            logits = following.send(token)


def _following_logits(
    model: LoadedModel,
    prefill: PrefillResult,
    make_decoder: Callable[[], FusedDecoder | None],
    room: int,
) -> Generator[torch.Tensor, int, None]:
    """Is sent a token, yields logits [V] after it; first an empty tensor, to begin with."""
    position = prefill.next_position
    token = yield torch.empty(0)
    decoder = make_decoder()
    state = decoder.begin(prefill.cache.layers, position, room) if decoder else None
    while True:
        if decoder is not None and state is not None:
            logits = decoder.step(state, token)
        else:
            with torch.inference_mode():
                hidden = forward_tokens(model, prefill.cache, [token], [position])
                logits = model.head(hidden)[0].float()
        position += 1
        token = yield logits


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


class TextStream:
    """Turns token ids into text pieces, holding back what a stop string could still take away."""

    def __init__(self, decode: Callable[[list[int]], str], stop: tuple[str, ...]) -> None:
        self._decode = decode
        self._stop = stop
        self._ids: list[int] = []
        self._sent = 0
        self.stopped = False

    def push(self, token: int) -> str:
        """New text that is certain after one more token; sets `stopped` at a stop string."""
        self._ids.append(token)
        text = self._decode(self._ids)
        cut = min((at for at in map(text.find, self._stop) if at >= 0), default=-1)
        if cut >= 0:
            self.stopped = True
            return self._take(text[:cut])
        certain = len(text) - self._doubtful(text)
        return self._take(text[:certain])

    def finish(self) -> str:
        """What was held back, once no more tokens come."""
        return "" if self.stopped else self._take(self._decode(self._ids))

    def _take(self, text: str) -> str:
        piece = text[self._sent :]
        self._sent = max(self._sent, len(text))
        return piece

    def _doubtful(self, text: str) -> int:
        """Length of the tail that is half a character or may begin a stop string."""
        half = len(text) - len(text.rstrip(REPLACEMENT))
        longest = 0
        for stop in self._stop:
            for size in range(1, min(len(stop), len(text)) + 1):
                if text.endswith(stop[:size]):
                    longest = max(longest, size)
        return max(half, longest)
