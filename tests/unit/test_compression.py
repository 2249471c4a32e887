"""Compression settings: checked once, with the limit in the message."""

import math
from typing import Any

import pytest
from hypothesis import given

from fedattn.core.codecs import AUTO_CODEC
from fedattn.core.compression import Compression
from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import MAX_SEED
from fedattn.core.selection import DEFAULT_SELECTOR, MAX_KEEP_ENDS
from tests.harness.strategies import compressions


def test_default_sends_every_row_with_the_best_codec() -> None:
    compression = Compression()
    assert compression.codec.name == AUTO_CODEC
    assert compression.keep_ratio == compression.input_keep_ratio == 1.0
    assert compression.selector == DEFAULT_SELECTOR
    assert compression.keep_ends == 0


@given(compressions())
def test_settings_within_the_limits_are_taken(compression: Compression) -> None:
    assert compression == Compression(
        codec=compression.codec,
        keep_ratio=compression.keep_ratio,
        selector=compression.selector,
        keep_ends=compression.keep_ends,
        input_keep_ratio=compression.input_keep_ratio,
        seed=compression.seed,
    )


@pytest.mark.parametrize("name", ["keep_ratio", "input_keep_ratio"])
@pytest.mark.parametrize("ratio", [0.0, -0.0, -0.1, 1.0000001, 2.0, math.nan, math.inf, -math.inf])
def test_ratio_outside_0_to_1_is_refused_with_its_name(name: str, ratio: float) -> None:
    settings: dict[str, Any] = {name: ratio}
    with pytest.raises(InvalidRequestError, match=f"^{name} must be above 0 and at most 1, got"):
        Compression(**settings)


@pytest.mark.parametrize(("name", "limit"), [("keep_ends", MAX_KEEP_ENDS), ("seed", MAX_SEED)])
def test_number_outside_its_range_is_refused_with_the_limit(name: str, limit: int) -> None:
    for allowed in (0, limit):
        settings: dict[str, Any] = {name: allowed}
        assert getattr(Compression(**settings), name) == allowed
    for refused in (-1, limit + 1):
        settings = {name: refused}
        with pytest.raises(InvalidRequestError, match=f"^{name} must be between 0 and {limit}"):
            Compression(**settings)


def test_unknown_selector_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InvalidRequestError, match="random, recency, key-norm") as caught:
        Compression(selector="best" * 1000)
    assert len(str(caught.value)) < 250
