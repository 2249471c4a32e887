"""Sampling parameters: the default is greedy, and every range is checked."""

import math
from dataclasses import replace
from typing import Any

import pytest

from fedattn.core.errors import InvalidSamplingError
from fedattn.core.sampling import SamplingParams


def test_default_is_greedy() -> None:
    assert SamplingParams().is_greedy
    assert not SamplingParams(temperature=0.7).is_greedy


def test_the_most_likely_token_is_that_whatever_the_defaults() -> None:
    sampling = SamplingParams.most_likely(7)
    assert sampling.max_new_tokens == 7
    assert sampling.is_greedy
    assert (sampling.repetition_penalty, sampling.no_repeat_ngram_size) == (1.0, 0)


@pytest.mark.parametrize(
    "allowed",
    [
        {"max_new_tokens": 1},
        {"max_new_tokens": 8192},
        {"temperature": 0.0},
        {"temperature": 10.0},
        {"top_p": 1.0},
        {"top_p": 1e-6},
        {"top_k": 0},
        {"top_k": 1_000_000},
        {"repetition_penalty": 1.0},
        {"repetition_penalty": 10.0},
        {"no_repeat_ngram_size": 0},
        {"no_repeat_ngram_size": 64},
        {"seed": 0},
        {"seed": 2**63 - 1},
        {"stop": ("x" * 200,) * 16},
    ],
)
def test_both_ends_of_every_range_are_allowed(allowed: dict[str, Any]) -> None:
    sampling = replace(SamplingParams(), **allowed)
    assert {name: getattr(sampling, name) for name in allowed} == allowed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 8193),
        ("temperature", -0.1),
        ("temperature", 10.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("top_k", -1),
        ("top_k", 1_000_001),
        ("repetition_penalty", 0.9),
        ("repetition_penalty", 10.1),
        ("repetition_penalty", math.nan),
        ("no_repeat_ngram_size", -1),
        ("no_repeat_ngram_size", 65),
        ("seed", -1),
        ("seed", 2**63),
    ],
)
def test_value_out_of_range_is_refused_by_name_and_value(field: str, value: float) -> None:
    wrong: dict[str, Any] = {field: value}
    with pytest.raises(InvalidSamplingError) as caught:
        replace(SamplingParams(), **wrong)
    assert str(caught.value).startswith(f"{field} must be between ")
    assert str(caught.value).endswith(f"got {value}")


@pytest.mark.parametrize(
    ("stop", "complaint"),
    [
        (("x",) * 17, "number of stop strings must be between 0 and 16, got 17"),
        (("",), "length of a stop string must be between 1 and 200, got 0"),
        (("private" * 40,), "length of a stop string must be between 1 and 200, got 280"),
    ],
)
def test_stop_strings_are_bounded_and_never_quoted(stop: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(InvalidSamplingError) as caught:
        SamplingParams(stop=stop)
    assert str(caught.value) == complaint
