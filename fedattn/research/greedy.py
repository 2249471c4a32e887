"""Greedy answers, decoded no further than they are not known yet."""

from functools import cache
from typing import Any

import torch

from fedattn.core.sampling import SamplingParams
from fedattn.model.decode import Decoder, TransformersDecoder, generate_tokens
from fedattn.model.fused import FLOAT32, FusedDecoder
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import PrefillResult, forward_tokens


class GreedyAnswers:
    """Answers of one model by its most likely tokens, in the precision that it is loaded in.

    Args:
        model: in float32 on a CPU it is decoded by `FusedDecoder` if that knows its blocks.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._make_decoder = cache(self._choose_decoder)

    def decode(self, prefill: PrefillResult, most: int) -> list[int]:
        """At most so many tokens, without an end token; leaves the cache as it was."""
        sampling = SamplingParams.most_likely(most)
        make_decoder = None if prefill.cache.asks_others else self._make_decoder
        tokens = list(generate_tokens(self._model, prefill, sampling, make_decoder))
        decoded = prefill.cache.layers[0].positions >= prefill.next_position
        prefill.cache.drop_last(int(decoded.sum()))
        return tokens

    @torch.inference_mode()
    def follow(
        self, prefill: PrefillResult, expected: list[int], most: int
    ) -> tuple[list[int], torch.Tensor]:
        """As `decode`, given a guess: the expected tokens run at once, and decoding goes on where
        the answer departs from them.

        Example: expected 5 6 7 8, most likely 5 6 9: 9 is known from the logits after 5 6, and
        what follows 5 6 9 is decoded.

        Args:
            prefill: what to decode from.
            expected: A >= 1 tokens that the answer may begin with, no end token among them.
            most: tokens of the answer at most.

        Returns:
            The answer, and [A, V] float32 log-probabilities before each of the expected tokens.
        """
        model, start = self._model, prefill.next_position
        positions = range(start, start + len(expected))
        hidden = forward_tokens(model, prefill.cache, expected, positions)
        logits = torch.cat([prefill.logits[None], model.head(hidden).float()])
        same = num_same(expected[:most], logits.argmax(dim=-1).tolist())
        prefill.cache.drop_last(len(expected) - same)
        answer = expected[:same]
        if same < most:
            departed = PrefillResult(
                cache=prefill.cache, logits=logits[same], next_position=start + same
            )
            answer = answer + self.decode(departed, most - same)
        prefill.cache.drop_last(same)
        return answer, torch.log_softmax(logits[:-1], dim=-1)

    def _choose_decoder(self) -> Decoder[Any]:
        model = self._model
        weights = next(model.backbone.parameters())
        is_lean = model.read_block is not None and model.device.type == "cpu"
        if is_lean and weights.dtype == torch.float32:
            return FusedDecoder(model, FLOAT32)
        return TransformersDecoder(model)


def num_same(first: list[int], second: list[int]) -> int:
    """How many tokens two texts begin with in common."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))
