"""A participant's rows on their way: chosen, encoded, and read again where they belong."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import FULL_SHARE, Compression
from fedattn.core.errors import InternalError, PolicyRefusedError
from fedattn.core.frames import decode_frame
from fedattn.core.plans import SyncPlan
from fedattn.core.row_scores import RowScorer
from fedattn.core.selection import LEARNED, SELECTORS
from fedattn.core.spans import Member, Role, Span
from fedattn.core.transfer import frame_spec, max_upload_size, place_rows, write_frame
from fedattn.core.types import HeadRows, KvRows, KvShape
from tests.harness.samples import rotary_of
from tests.harness.strategies import compressions

SHAPE = KvShape(num_layers=9, num_kv_heads=2, head_dim=6)
ROTARY = rotary_of(6)
START = 100
NUM_HEADS = SHAPE.num_layers * SHAPE.num_kv_heads
SCORER = RowScorer(
    weights=np.random.default_rng(7).normal(size=(9, 2, 24)).astype(np.float32),
    bias=np.zeros((9, 2), dtype=np.float32),
)


def member_of(compression: Compression, length: int = 10, start: int = START) -> Member:
    return Member(
        node_id="a",
        role=Role.CONTRIBUTOR,
        span=Span(start, start + length),
        plan=SyncPlan(()),
        compression=compression,
    )


def computed_rows(member: Member, seed: int = 0) -> KvRows:
    """Rows of all tokens that the member computes."""
    random = np.random.default_rng(seed)
    positions = member.input_positions()
    size = (2, SHAPE.num_kv_heads, len(positions), SHAPE.head_dim)
    keys, values = random.normal(size=size).astype(np.float32)
    return KvRows(keys=keys, values=values, positions=positions)


def written(
    member: Member,
    layer: int,
    rows: KvRows,
    *,
    scorer: RowScorer | None = SCORER,
    withheld: tuple[int, ...] = (),
) -> bytes:
    """The frame of these rows, with queries of two heads for each key/value head."""
    size = (2 * SHAPE.num_kv_heads, rows.num_rows, SHAPE.head_dim)
    queries = np.random.default_rng(9).normal(size=size).astype(np.float32)
    return write_frame(member, layer, rows, lambda: queries, ROTARY, scorer, withheld)


def through(member: Member, layer: int, rows: KvRows, withheld: tuple[int, ...] = ()) -> HeadRows:
    """What arrives of a member's rows."""
    frame = written(member, layer, rows, withheld=withheld)
    return decode_frame(frame, frame_spec(member, SHAPE, layer), ROTARY)


def travelled(member: Member, layer: int = 0, *, by: Compression | None = None) -> list[int]:
    """Positions whose rows arrive, the same of both heads."""
    if by is not None:
        member = replace(member, compression=by)
    came = through(member, layer, computed_rows(member))
    first, second = (list(came.positions[head]) for head in came.heads)
    assert first == second
    return [int(position) for position in first]


def learned(shares: bytes, layer: int = 0, **settings: Any) -> Compression:
    """Shares of the two heads of one layer; those of other layers keep none."""
    before = bytes(SHAPE.num_kv_heads * layer)
    all_shares = (before + shares).ljust(NUM_HEADS, b"\0")
    return Compression(selector=LEARNED, head_shares=all_shares, keep_ratio=0.3, **settings)


@given(compressions(NUM_HEADS), st.integers(1, 30), st.integers(0, 8))
@example(learned(bytes([0, 90])), 20, 0)
@example(learned(bytes([255, 255]), input_keep_ratio=0.5), 20, 0)
@example(learned(bytes([255, 255])), 20, 0)
def test_what_arrives_are_the_senders_own_rows_within_the_codecs_error(
    compression: Compression, length: int, layer: int
) -> None:
    member = member_of(compression, length)
    rows = computed_rows(member)
    frame = written(member, layer, rows)
    assert len(frame) <= max_upload_size(member, SHAPE, layer)
    got = decode_frame(frame, frame_spec(member, SHAPE, layer), ROTARY)
    assert got.counts == member.head_counts(layer, SHAPE.num_kv_heads)
    kept = np.searchsorted(rows.positions, got.positions)
    assert np.array_equal(rows.positions[kept], got.positions)
    heads = np.repeat(np.arange(SHAPE.num_kv_heads), got.counts)
    sent_keys, sent_values = rows.keys[heads, kept], rows.values[heads, kept]
    if compression.codec.keys_before_rope:
        sent_keys = ROTARY.undo(sent_keys, got.positions)
        got_keys = ROTARY.undo(got.keys, got.positions)
    else:
        got_keys = got.keys
    key_bound, value_bound = compression.codec.error_bound(sent_keys, sent_values, got.counts)
    assert (np.abs(got_keys - sent_keys) <= key_bound + 1e-5).all()
    is_refitted = compression.is_refitted and min(got.counts) < length
    assert (got.biases is not None) is is_refitted
    untouched = np.isin(heads, [h for h, n in enumerate(got.counts) if n == rows.num_rows])
    same = untouched if is_refitted else np.ones_like(untouched)
    assert (np.abs(got.values - sent_values) <= value_bound)[same].all()


@given(compressions(NUM_HEADS), st.integers(0, 30))
def test_upload_of_a_codec_of_fixed_size_is_exactly_foretold(
    compression: Compression, length: int
) -> None:
    member = member_of(replace(compression, codec=codec_by_name("int4")), length + 1)
    frame = written(member, 0, computed_rows(member))
    assert len(frame) == max_upload_size(member, SHAPE, 0)


def test_random_rows_differ_between_layers_seeds_and_spans() -> None:
    by = Compression(selector="random", keep_ratio=0.5)
    member = member_of(by, length=40)
    here = travelled(member, 0)
    assert travelled(member, 0) == here
    assert travelled(member, 1) != here
    assert travelled(member, 0, by=replace(by, seed=1)) != here
    elsewhere = travelled(member_of(by, length=40, start=START + 40), 0)
    assert [position - 40 for position in elsewhere] != here


@pytest.mark.parametrize("selector", SELECTORS)
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
    rules = frame_spec(member_of(by), SHAPE, 0)
    assert (rules.sender, rules.codec, rules.shape) == ("a", codec_by_name("int8"), SHAPE)
    assert (rules.span, rules.counts) == (Span(100, 110), (2, 2))


def test_rules_of_each_layer_say_the_shares_of_its_heads() -> None:
    member = member_of(learned(bytes([0, 51, 255, 128]), layer=3))
    assert frame_spec(member, SHAPE, 3).counts == (0, 2)
    assert frame_spec(member, SHAPE, 4).counts == (10, 6)


@pytest.mark.parametrize("layer", [0, 5])
def test_learned_scores_choose_the_rows_of_every_head_from_its_keys_before_rope(layer: int) -> None:
    member = member_of(learned(bytes([102, 204]), layer))
    rows = computed_rows(member)
    keys = ROTARY.undo(rows.keys, rows.positions)
    features = [np.concatenate([*keys[:, t], *rows.values[:, t]]) for t in range(rows.num_rows)]
    came = through(member, layer, rows)
    for head, kept in enumerate(came.heads):
        scores = [float(SCORER.weights[layer, head] @ row) for row in features]
        best = sorted(sorted(range(10), key=lambda t: -scores[t])[: came.counts[head]])
        assert came.positions[kept].tolist() == [START + t for t in best]
    assert came.counts == (4, 8)


def test_rows_of_the_same_text_elsewhere_are_chosen_alike() -> None:
    """Scores see keys before RoPE, so where a span lies does not matter."""
    by = learned(bytes([102, 204]))
    here, there = member_of(by, 20), member_of(by, 20, start=5000)
    rows = computed_rows(here)
    at = there.input_positions()
    keys = ROTARY.apply(ROTARY.undo(rows.keys, rows.positions), at)
    moved = through(there, 0, KvRows(keys=keys, values=rows.values, positions=at))
    assert (moved.positions - 5000).tolist() == (through(here, 0, rows).positions - START).tolist()


def test_node_without_scores_cannot_choose_by_them() -> None:
    member = member_of(learned(bytes([102, 204])))
    with pytest.raises(InternalError, match="a is to choose rows by scores of the model, and has"):
        written(member, 0, computed_rows(member), scorer=None)
    everything = member_of(learned(bytes([FULL_SHARE] * 2)))
    assert len(travelled(everything)) == 10  # nothing is to be chosen


@pytest.mark.parametrize("compression", [learned(bytes([102, 255])), Compression()])
def test_withheld_rows_travel_for_no_head(compression: Compression) -> None:
    member = replace(member_of(compression), num_withheld=3)
    withheld = (0, 4, 9)
    rows = computed_rows(member)
    came = through(member, 0, rows, withheld)
    assert max(came.counts) == 7
    assert not set(came.positions - START) & set(withheld)
    with pytest.raises(PolicyRefusedError, match="10 rows are to travel, its owner lets 7"):
        written(member_of(compression), 0, rows, withheld=withheld)


def test_rows_are_placed_where_their_span_is_in_the_session() -> None:
    by = learned(bytes([51, 255]), codec=codec_by_name("fp32"))
    member = replace(member_of(by), position_offset=60)
    rows = computed_rows(replace(member, span=Span(40, 50), position_offset=0))
    placed = place_rows(through(member, 0, rows), member, ROTARY)
    first, second = placed.heads
    assert placed.counts == (2, 10)
    assert placed.positions[second].tolist() == list(range(START, START + 10))
    turned = ROTARY.apply(rows.keys, np.array([60]))
    assert np.allclose(placed.keys[second], turned[1], atol=1e-6)
    assert np.allclose(placed.keys[first], turned[0][placed.positions[first] - START], atol=1e-6)
