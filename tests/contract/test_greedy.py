"""Greedy answers that follow a guess are those that are decoded, at any guess."""

from dataclasses import replace

import pytest
import torch

from fedattn.model.decode import answer_log_probs
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import PrefillResult
from fedattn.research import greedy
from fedattn.research.greedy import GreedyAnswers
from fedattn.research.oracle import oracle_greedy
from tests.harness.runners import prefill_in_process
from tests.harness.scenarios import SCENARIOS
from tests.harness.tiny import FAMILIES, VOCABULARY, tiny_model

MOST = 6
SCENARIO = SCENARIOS[1]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny_model(request.param)


@pytest.fixture(params=["lean", "transformers"])
def answers(request: pytest.FixtureRequest, model: LoadedModel) -> GreedyAnswers:
    return GreedyAnswers(model if request.param == "lean" else replace(model, read_block=None))


@pytest.fixture
def prefill(model: LoadedModel) -> PrefillResult:
    return prefill_in_process(SCENARIO, model)[0]


@pytest.fixture
def expected(model: LoadedModel) -> list[int]:
    return oracle_greedy(model, SCENARIO.layout(), SCENARIO.joined(), MOST)


def change(tokens: list[int], at: int) -> list[int]:
    return [*tokens[:at], (tokens[at] + 1) % VOCABULARY, *tokens[at + 1 :]]


def test_decodes_what_the_oracle_does(
    answers: GreedyAnswers, prefill: PrefillResult, expected: list[int]
) -> None:
    assert answers.decode(prefill, MOST) == expected
    assert answers.decode(prefill, MOST) == expected, "the cache was changed"


@pytest.mark.parametrize("wrong_at", range(MOST))
def test_departs_from_a_guess_where_the_answer_does(
    wrong_at: int, answers: GreedyAnswers, prefill: PrefillResult, expected: list[int]
) -> None:
    for guess in (change(expected, wrong_at), expected[: wrong_at + 1], [*expected, 3, 4]):
        answer, _ = answers.follow(prefill, guess, MOST)
        assert answer == expected
    assert answers.decode(prefill, MOST) == expected, "the cache was changed"


def test_says_how_likely_each_token_of_the_guess_was(
    model: LoadedModel, answers: GreedyAnswers, prefill: PrefillResult, expected: list[int]
) -> None:
    guess = change(expected, 2)
    _, log_probs = answers.follow(prefill, guess, MOST)
    torch.testing.assert_close(log_probs, answer_log_probs(model, prefill, guess))


def test_an_answer_that_ends_after_the_guess_ends_there(
    model: LoadedModel, prefill: PrefillResult, expected: list[int]
) -> None:
    at = max(i for i in range(MOST) if expected[i] not in expected[:i])
    ending = GreedyAnswers(replace(model, end_token_ids=frozenset({expected[at]})))
    known = expected[:at]
    for guess in (known, change(expected, at), change(known, 0)):
        assert ending.follow(prefill, guess, MOST)[0] == known


def test_nothing_is_decoded_where_the_guess_is_the_answer(
    monkeypatch: pytest.MonkeyPatch,
    model: LoadedModel,
    prefill: PrefillResult,
    expected: list[int],
) -> None:
    monkeypatch.setattr(greedy, "generate_tokens", None)
    assert GreedyAnswers(model).follow(prefill, expected, MOST)[0] == expected
