"""A participant's rows on their way: chosen, encoded, and read again where they belong."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.frames import decode_frame
from fedattn.core.plans import SyncPlan
from fedattn.core.selection import SELECTOR_NAMES
from fedattn.core.spans import Member, Role, Span
from fedattn.core.transfer import frame_spec, max_upload_size, write_frame
from fedattn.core.types import FloatArray, KvRows, KvShape
from tests.harness.samples import rotary_of
from tests.harness.strategies import compressions

SHAPE = KvShape(num_layers=9, num_kv_heads=2, head_dim=6)
ROTARY = rotary_of(6)
START = 100


def member_of(compression: Compression, length: int = 10, start: int = START) -> Member:
    return Member(
        node_id="a",
        role=Role.CONTRIBUTOR,
        span=Span(start, start + length),
        plan=SyncPlan(()),
        compression=compression,
    )


def computed_rows(member: Member, seed: int = 0) -> tuple[KvRows, FloatArray]:
    """Rows of all tokens that the member computes, and their queries."""
    random = np.random.default_rng(seed)
    positions = member.input_positions()
    size = (len(positions), SHAPE.head_dim)
    keys, values = random.normal(size=(2, SHAPE.num_kv_heads, *size)).astype(np.float32)
    queries = random.normal(size=(3 * SHAPE.num_kv_heads, *size)).astype(np.float32)
    return KvRows(keys=keys, values=values, positions=positions), queries


def travelled(member: Member, layer: int = 0, *, by: Compression | None = None) -> list[int]:
    """Positions whose rows arrive."""
    if by is not None:
        member = replace(member, compression=by)
    rows, queries = computed_rows(member)
    frame = write_frame(member, layer, rows, lambda: queries, ROTARY)
    positions = decode_frame(frame, frame_spec(member, SHAPE), ROTARY).positions
    return [int(position) for position in positions]


@given(compressions(), st.integers(1, 30), st.integers(0, 8))
def test_what_arrives_are_the_senders_own_rows_within_the_codecs_error(
    compression: Compression, length: int, layer: int
) -> None:
    member = member_of(compression, length)
    rows, queries = computed_rows(member)
    frame = write_frame(member, layer, rows, lambda: queries, ROTARY)
    assert len(frame) <= max_upload_size(member, SHAPE)
    got = decode_frame(frame, frame_spec(member, SHAPE), ROTARY)
    assert got.num_rows == member.num_sent
    kept = np.searchsorted(rows.positions, got.positions)
    assert np.array_equal(rows.positions[kept], got.positions)
    sent_keys, sent_values = rows.keys[:, kept], rows.values[:, kept]
    if compression.codec.keys_before_rope:
        sent_keys = ROTARY.undo(sent_keys, got.positions)
        got_keys = ROTARY.undo(got.keys, got.positions)
    else:
        got_keys = got.keys
    key_bound, value_bound = compression.codec.error_bound(sent_keys, sent_values)
    assert (np.abs(got_keys - sent_keys) <= key_bound + 1e-5).all()
    assert (np.abs(got.values - sent_values) <= value_bound).all()


@given(compressions(), st.integers(0, 30))
def test_upload_of_a_codec_of_fixed_size_is_exactly_foretold(
    compression: Compression, length: int
) -> None:
    member = member_of(replace(compression, codec=codec_by_name("int4")), length + 1)
    rows, queries = computed_rows(member)
    frame = write_frame(member, 0, rows, lambda: queries, ROTARY)
    assert len(frame) == max_upload_size(member, SHAPE)


def test_random_rows_differ_between_layers_seeds_and_spans() -> None:
    by = Compression(selector="random", keep_ratio=0.5)
    member = member_of(by, length=40)
    here = travelled(member, 0)
    assert travelled(member, 0) == here
    assert travelled(member, 1) != here
    assert travelled(member, 0, by=replace(by, seed=1)) != here
    elsewhere = travelled(member_of(by, length=40, start=START + 40), 0)
    assert [position - 40 for position in elsewhere] != here


@pytest.mark.parametrize("selector", SELECTOR_NAMES)
def test_every_selector_is_reached_and_repeats_itself(selector: str) -> None:
    member = member_of(Compression(selector=selector, keep_ratio=0.3), length=20)
    assert travelled(member) == travelled(member)
    assert len(travelled(member)) == 6


def test_selector_and_kept_ends_decide_which_rows_travel() -> None:
    by = Compression(selector="recency", keep_ratio=0.4)
    assert travelled(member_of(by)) == [106, 107, 108, 109]
    assert travelled(member_of(by), by=replace(by, keep_ends=1)) == [100, 107, 108, 109]


def test_rows_of_dropped_tokens_never_travel() -> None:
    member = member_of(Compression(input_keep_ratio=0.5, seed=4))
    assert travelled(member) == member.input_positions().tolist()
    assert len(travelled(member)) == 5


def test_rules_say_what_the_member_may_send() -> None:
    by = Compression(codec=codec_by_name("int8"), keep_ratio=0.4, input_keep_ratio=0.5)
    rules = frame_spec(member_of(by), SHAPE)
    assert (rules.sender, rules.codec, rules.shape) == ("a", codec_by_name("int8"), SHAPE)
    assert (rules.span, rules.num_rows) == (Span(100, 110), 2)


@pytest.mark.parametrize("selector", SELECTOR_NAMES)
@pytest.mark.parametrize("keep_ratio", [0.5, 1.0])
def test_queries_are_fetched_only_for_a_selector_that_looks_at_them(
    selector: str, keep_ratio: float
) -> None:
    """They may have to come from a GPU."""
    member = member_of(Compression(selector=selector, keep_ratio=keep_ratio))
    rows, queries = computed_rows(member)
    asked = []

    def fetch() -> FloatArray:
        asked.append(selector)
        return queries

    write_frame(member, 0, rows, fetch, ROTARY)
    assert bool(asked) == (selector == "own-attention" and keep_ratio < 1.0)
