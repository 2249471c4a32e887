"""Answers that do not go round in circles: against transformers' own processors, and by hand."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from fedattn.core.sampling import SamplingParams
from fedattn.model.decode import TokenChooser, generate_tokens
from fedattn.model.fused import FLOAT32, FusedDecoder
from tests.harness.runners import prefill_in_process
from tests.harness.scenarios import SCENARIOS
from tests.harness.tiny import FAMILIES, tiny_model

VOCABULARY, NUM_TOKENS = 50, 40
PLAIN = SamplingParams.most_likely(NUM_TOKENS)
SETTINGS = (
    replace(PLAIN, repetition_penalty=1.3),
    replace(PLAIN, no_repeat_ngram_size=1),
    replace(PLAIN, no_repeat_ngram_size=3),
    replace(PLAIN, repetition_penalty=2.0, no_repeat_ngram_size=2),
)


def random_logits(seed: int) -> list[torch.Tensor]:
    """One [V] float32 a step; token 0 is likely everywhere, so that it would come all the time."""
    logits = torch.randn(NUM_TOKENS, VOCABULARY, generator=torch.Generator().manual_seed(seed))
    logits[:, 0] += 2.0
    return list(logits)


def choices(sampling: SamplingParams, logits: list[torch.Tensor]) -> list[int]:
    chooser = TokenChooser(sampling, torch.device("cpu"))
    return [chooser.choose(one) for one in logits]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sampling", SETTINGS)
def test_choices_equal_those_of_transformers_processors(
    sampling: SamplingParams, seed: int
) -> None:
    processors = LogitsProcessorList()
    if sampling.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.no_repeat_ngram_size:
        processors.append(NoRepeatNGramLogitsProcessor(sampling.no_repeat_ngram_size))
    logits = random_logits(seed)
    expected: list[int] = []
    for one in logits:
        ids = torch.tensor([expected], dtype=torch.int64)
        expected.append(int(processors(ids, one[None]).argmax()))
    assert choices(sampling, logits) == expected
    assert expected != choices(PLAIN, logits)


def test_penalty_divides_what_was_said_and_multiplies_it_below_zero() -> None:
    sampling = replace(PLAIN, repetition_penalty=2.0)
    said = torch.tensor([9.0, 0.0, 0.0])
    assert choices(sampling, [said, torch.tensor([3.0, 1.6, 0.0])]) == [0, 1]
    assert choices(sampling, [said, torch.tensor([3.0, 1.4, 0.0])]) == [0, 0]
    assert choices(sampling, [said, torch.tensor([-2.0, -3.9, -9.0])]) == [0, 1]
    assert choices(sampling, [said, torch.tensor([-2.0, -4.1, -9.0])]) == [0, 0]


@pytest.mark.parametrize("size", [2, 3])
def test_no_run_of_tokens_comes_twice(size: int) -> None:
    tokens = choices(replace(PLAIN, no_repeat_ngram_size=size), random_logits(1))
    runs = list(zip(*(tokens[start:] for start in range(size)), strict=False))
    assert len(set(runs)) == len(runs)
    plain = choices(PLAIN, random_logits(1))
    runs = list(zip(*(plain[start:] for start in range(size)), strict=False))
    assert len(set(runs)) < len(runs)


def test_what_is_off_changes_nothing() -> None:
    logits = random_logits(2)
    assert choices(PLAIN, logits) == [int(one.argmax()) for one in logits]
    hot = replace(PLAIN, temperature=1.5, seed=4)
    generator = torch.Generator().manual_seed(4)
    expected = [
        int(torch.multinomial(torch.softmax(one / 1.5, dim=-1), 1, generator=generator))
        for one in logits
    ]
    assert choices(hot, logits) == expected


def test_seed_decides_the_draw_with_penalties_too() -> None:
    logits = random_logits(5)
    hot = replace(
        PLAIN, temperature=1.5, top_p=0.9, repetition_penalty=1.5, no_repeat_ngram_size=3, seed=1
    )
    assert choices(hot, logits) == choices(hot, logits)
    assert choices(hot, logits) != choices(replace(hot, seed=2), logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_both_decoders_give_one_answer_without_repetition(family: str) -> None:
    model = tiny_model(family)
    prefill, _ = prefill_in_process(SCENARIOS[1], model)
    sampling = replace(PLAIN, repetition_penalty=1.2, no_repeat_ngram_size=2)
    lean = FusedDecoder(model, FLOAT32)
    fused = list(generate_tokens(model, prefill, sampling, lambda: lean))
    assert list(generate_tokens(model, prefill, sampling)) == fused
    pairs = list(pairwise(fused))
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_may_be_repeated(family: str) -> None:
    """Only the answer counts: the first token is what it would be without any penalty."""
    model = tiny_model(family)
    prefill, _ = prefill_in_process(SCENARIOS[1], model)
    said = int(prefill.logits.argmax())
    sampling = replace(PLAIN, max_new_tokens=1, repetition_penalty=10.0, no_repeat_ngram_size=1)
    assert list(generate_tokens(model, prefill, sampling)) == [said]
