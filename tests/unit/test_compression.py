"""Compression settings: checked once, with the limit in the message."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.codecs import AUTO_CODEC
from fedattn.core.compression import FULL_SHARE, Compression
from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import MAX_SEED
from fedattn.core.selection import DEFAULT_SELECTOR, LEARNED, MAX_KEEP_ENDS
from fedattn.core.types import KvShape
from tests.harness.strategies import compressions


def test_default_sends_every_row_with_the_best_codec() -> None:
    compression = Compression()
    assert compression.codec.name == AUTO_CODEC
    assert compression.keep_ratio == compression.input_keep_ratio == 1.0
    assert compression.selector == DEFAULT_SELECTOR
    assert compression.keep_ends == 0


@given(compressions(6))
def test_settings_within_the_limits_are_taken(compression: Compression) -> None:
    assert compression == Compression(
        codec=compression.codec,
        keep_ratio=compression.keep_ratio,
        selector=compression.selector,
        keep_ends=compression.keep_ends,
        input_keep_ratio=compression.input_keep_ratio,
        seed=compression.seed,
        head_shares=compression.head_shares,
    )


def learned(*shares: int, keep_ratio: float = 0.5) -> Compression:
    return Compression(selector=LEARNED, head_shares=bytes(shares), keep_ratio=keep_ratio)


def test_each_head_keeps_its_share_rounded_up() -> None:
    """Two heads a block; of ten rows."""
    by = learned(0, 255, 26, 25, 1, 128)
    assert by.head_counts(10, 0, 2) == (0, 10)
    assert by.head_counts(10, 1, 2) == (2, 1)
    assert by.head_counts(10, 2, 2) == (1, 6)


def test_one_row_travels_where_no_head_keeps_any() -> None:
    assert learned(0, 0).head_counts(10, 0, 2) == (1, 0)
    assert learned(0, 0).head_counts(0, 0, 2) == (0, 0)


def test_every_head_keeps_the_ratio_where_nobody_measured_them() -> None:
    assert Compression(keep_ratio=0.35).head_counts(10, 7, 3) == (3, 3, 3)


@given(st.binary(min_size=4, max_size=4), st.integers(0, 3000), st.floats(0.01, 1))
def test_keeping_less_never_adds_a_row_to_any_head(
    shares: bytes, num_rows: int, keep_ratio: float
) -> None:
    by = learned(*shares, keep_ratio=0.6)
    less = by.at_most(keep_ratio)
    assert less.keep_ratio == min(0.6, keep_ratio)
    pairs = zip(less.head_counts(num_rows, 0, 4), by.head_counts(num_rows, 0, 4), strict=True)
    assert all(fewer <= before for fewer, before in pairs)


def test_keeping_less_leaves_every_head_its_part() -> None:
    assert learned(200, 100, 0, keep_ratio=0.6).at_most(0.3).head_shares == bytes([100, 50, 0])
    assert Compression(keep_ratio=0.6).at_most(0.3) == Compression(keep_ratio=0.3)
    assert Compression(keep_ratio=0.6).at_most(0.9) == Compression(keep_ratio=0.6)


def test_short_texts_keep_as_many_rows_as_longer_ones() -> None:
    by = replace(learned(51, 255, 0, 5, keep_ratio=0.3), least_rows=100)
    assert by.head_counts(200, 0, 4) == (40, 200, 0, 4)
    assert by.head_counts(100, 0, 4) == (20, 100, 0, 2)
    assert by.head_counts(50, 0, 4) == (20, 50, 0, 2)
    assert by.head_counts(10, 0, 4) == (10, 10, 0, 2)
    assert by.share_of(200) == by.share_of(100) == 0.3
    assert by.share_of(50) == pytest.approx(0.3 * 72 / 61)
    assert Compression(keep_ratio=0.6).share_of(50) == 0.6


def test_an_owners_limit_is_of_short_texts_too() -> None:
    by = replace(learned(51, 255, 0, 5, keep_ratio=0.3), least_rows=100)
    assert by.at_most(1.0) == by
    assert by.at_most(0.9) == replace(by, least_rows=0)
    assert by.at_most(0.15).head_counts(20, 0, 4) == (2, 10, 0, 1)


@pytest.mark.parametrize(
    "settings",
    [{"least_rows": 1}, {"selector": LEARNED, "head_shares": b"\1", "least_rows": 1 << 20}],
)
def test_least_rows_are_of_shares_and_bounded(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="least_rows: expected 0 to 65536, and 0 without"):
        Compression(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"selector": LEARNED},
        {"selector": "random", "head_shares": b"\1"},
        {"head_shares": bytes([FULL_SHARE])},
    ],
)
def test_learned_and_shares_of_heads_go_together(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="the selector learned goes with the shares of"):
        Compression(**settings)


def test_shares_of_another_model_are_refused() -> None:
    shape = KvShape(num_layers=2, num_kv_heads=3, head_dim=4)
    learned(*range(6)).check_shape(shape)
    Compression().check_shape(shape)
    with pytest.raises(InvalidRequestError, match="one of each of 6 heads, got 5; use a profile"):
        learned(*range(5)).check_shape(shape)


def test_compressions_with_other_shares_write_other_frames() -> None:
    assert learned(1, 2).plain != learned(1, 3).plain
    assert learned(1, 2).plain == learned(1, 2).plain


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
    with pytest.raises(
        InvalidRequestError, match="learned, random, recency, value-weighted"
    ) as caught:
        Compression(selector="best" * 1000)
    assert len(str(caught.value)) < 250
