"""Frames of rows that each head selected, of keys before RoPE, and of codecs of varying size."""

import struct
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.codecs import CODECS, Codec, codec_by_name
from fedattn.core.errors import CorruptFrameError, MalformedFrameError
from fedattn.core.frame_headers import HEADER_SIZE, FrameSpec, bitmaps_size, max_frame_size
from fedattn.core.frames import decode_frame, encode_frame, read_positions
from fedattn.core.spans import Span
from fedattn.core.types import KvShape
from tests.harness.samples import (
    KEPT,
    LAYER,
    ROTARY,
    SPAN,
    WIDE_SPAN,
    kept_frame,
    kept_rules,
    rotary_of,
    same_rows,
    sample_frame,
    sample_rows,
    sample_rules,
    sealed,
)

# magic, version, codec bf16, bitmap; layer, heads; head size; rows; first, length of span; body
GOLDEN_FIELDS = "464b5631 04030100 02000100 02000000 03000000 03000000 0a000000 1a000000"
GOLDEN_BITMAP = "0302"  # positions 3 and 4, then 12: bits 0 and 1, then 9
GOLDEN_PAYLOAD = "fac0f8c0 f6c0f4c0 f2c0f0c0 eec0ecc0 eac0e8c0 e6c0e4c0"
RAGGED_FIELDS = "464b5631 04030100 02000300 02000000 03000000 03000000 0a000000 1e000000"
RAGGED_BITMAPS = "0102 0000 0001"  # head 0 at 3 and 12, head 1 nowhere, head 2 at 11
RAGGED = ((3, 12), (), (11,))
THREE_HEADS = KvShape(num_layers=4, num_kv_heads=3, head_dim=2)
BIASED_FIELDS = "464b5631 04030200 02000300 02000000 03000000 03000000 0a000000 21000000"
BIASES = "10 81 7f"  # 1, -7.9375, 7.9375
each_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)


def with_bitmap(bitmap: bytes) -> bytes:
    frame = bytearray(kept_frame())
    frame[HEADER_SIZE : HEADER_SIZE + 2] = bitmap
    return sealed(frame)


def ragged_rules(codec: str = "bf16") -> FrameSpec:
    """Heads with two rows, none, and one."""
    return sample_rules(codec, shape=THREE_HEADS, span=WIDE_SPAN, counts=(2, 0, 1))


def ragged_frame(codec: str = "bf16", positions: Sequence[Sequence[int]] = RAGGED) -> bytes:
    rows = sample_rows(positions=positions)
    return encode_frame(rows, LAYER, codec_by_name(codec), WIDE_SPAN, ROTARY)


def test_frame_of_selected_rows_equals_its_golden_bytes() -> None:
    fields = bytes.fromhex(GOLDEN_FIELDS)
    golden = sealed(fields + bytes(4) + bytes.fromhex(GOLDEN_BITMAP + GOLDEN_PAYLOAD))
    assert kept_frame().hex() == golden.hex()
    assert same_rows(decode_frame(golden, kept_rules()), sample_rows(positions=[KEPT]))


def test_frame_of_heads_with_rows_of_their_own_equals_its_golden_bytes() -> None:
    golden = bytes.fromhex(RAGGED_FIELDS + "00000000" + RAGGED_BITMAPS + GOLDEN_PAYLOAD)
    assert ragged_frame().hex() == sealed(golden).hex()
    assert same_rows(decode_frame(sealed(golden), ragged_rules()), sample_rows(positions=RAGGED))


def biased_frame(*biases: float) -> bytes:
    rows = replace(sample_rows(positions=RAGGED), biases=np.array(biases, dtype=np.float32))
    return encode_frame(rows, LAYER, codec_by_name("bf16"), WIDE_SPAN)


def biased_rules() -> FrameSpec:
    return replace(ragged_rules(), is_refitted=True)


def test_frame_with_biases_equals_its_golden_bytes() -> None:
    """They are clipped, and rounded to sixteenths."""
    golden = sealed(
        bytes.fromhex(BIASED_FIELDS + "00000000" + RAGGED_BITMAPS + BIASES + GOLDEN_PAYLOAD)
    )
    assert biased_frame(1.01, -99.0, 99.0).hex() == golden.hex()
    assert len(golden) == max_frame_size(biased_rules())
    biases = decode_frame(golden, biased_rules()).biases
    assert biases is not None
    assert biases.tolist() == [1.0, -7.9375, 7.9375]


@given(st.integers(0, 2**31), st.integers(1, 40), st.data())
def test_any_selection_comes_out_at_its_positions(
    start: int, length: int, data: st.DataObject
) -> None:
    span, place = Span(start, start + length), st.integers(start, start + length - 1)
    some = st.lists(st.lists(place, unique=True).map(sorted), min_size=1, max_size=4)
    heads = data.draw(some.filter(any))
    rows = sample_rows(positions=heads)
    codec, shape = codec_by_name("bf16"), KvShape(num_layers=4, num_kv_heads=len(heads), head_dim=2)
    frame = encode_frame(rows, LAYER, codec, span)
    assert len(frame) == HEADER_SIZE + bitmaps_size(length, rows.counts) + 8 * rows.num_rows
    rules = sample_rules(shape=shape, span=span, counts=rows.counts)
    assert len(frame) == max_frame_size(rules)
    assert same_rows(decode_frame(frame, rules), rows)
    assert [head.tolist() for head in read_positions(frame, rules)] == heads


@pytest.mark.parametrize(
    ("length", "counts", "size"),
    [(8, (8,), 0), (8, (7,), 1), (9, (1,), 2), (16, (1,), 2), (17, (16,), 3), (8, (8, 8), 0),
     (8, (8, 7), 2), (9, (0, 9, 1), 6)],
)  # fmt: skip
def test_bitmaps_have_a_bit_for_each_position_unless_all_rows_travel(
    length: int, counts: tuple[int, ...], size: int
) -> None:
    assert bitmaps_size(length, counts) == size


def test_rules_need_the_rows_of_each_head() -> None:
    with pytest.raises(ValueError, match="rows of each of 3 heads, got those of 2"):
        sample_rules(shape=THREE_HEADS, span=WIDE_SPAN, counts=(2, 1))


@pytest.mark.parametrize(
    ("bitmap", "complaint"),
    [
        ("0300", "got 2"),
        ("0702", "got 4"),
        ("0000", "got 0"),
        ("ffff", "got 16"),
    ],
)
def test_bitmap_of_other_rows_than_agreed_is_corrupt(bitmap: str, complaint: str) -> None:
    with pytest.raises(
        CorruptFrameError, match="at layer 2: bitmap of head 0 expected 3 rows within 10"
    ) as e:
        decode_frame(with_bitmap(bytes.fromhex(bitmap)), kept_rules())
    assert complaint in str(e.value)


@pytest.mark.parametrize("bitmap", ["0304", "0380"])
def test_bit_behind_the_span_is_corrupt(bitmap: str) -> None:
    with pytest.raises(CorruptFrameError, match="bitmap has rows behind its 10 positions"):
        decode_frame(with_bitmap(bytes.fromhex(bitmap)), kept_rules())


@pytest.mark.parametrize(
    ("bitmaps", "head", "complaint"),
    [
        ("0100 0200 0001", 0, "expected 2 rows within 10 positions, got 1"),
        ("0102 0100 0000", 1, "expected 0 rows within 10 positions, got 1"),
        ("0102 0001 0000", 1, "expected 0 rows within 10 positions, got 1"),
        ("0102 0000 0000", 2, "expected 1 rows within 10 positions, got 0"),
        ("ffff ffff ffff", 0, "expected 2 rows within 10 positions, got 16"),
    ],
)
def test_bitmap_of_each_head_holds_just_its_rows(bitmaps: str, head: int, complaint: str) -> None:
    """The sum may be right: bits must not move from head to head."""
    frame = bytearray(ragged_frame())
    frame[HEADER_SIZE : HEADER_SIZE + 6] = bytes.fromhex(bitmaps)
    with pytest.raises(CorruptFrameError, match=f"bitmap of head {head} {complaint}"):
        decode_frame(sealed(frame), ragged_rules())


def test_rows_counted_for_other_heads_than_agreed_are_refused() -> None:
    """Codecs without scales write the same bytes for all of these."""
    for positions in ([(3, 12, 11), (), ()], [(3,), (12,), (11,)], [(), (3, 12), (11,)]):
        heads = [sorted(head) for head in positions]
        with pytest.raises(CorruptFrameError, match="bitmap of head 0 expected 2 rows"):
            decode_frame(ragged_frame(positions=heads), ragged_rules())
    with pytest.raises(MalformedFrameError, match="rows expected 3, got 4"):
        decode_frame(ragged_frame(positions=[(3, 12), (5,), (11,)]), ragged_rules())


def test_same_number_of_other_rows_of_the_span_is_fine() -> None:
    rows = decode_frame(with_bitmap(bytes.fromhex("8003")), kept_rules())
    assert rows.positions.tolist() == [10, 11, 12]


def test_bitmap_where_all_rows_were_agreed_is_refused() -> None:
    with pytest.raises(MalformedFrameError, match="rows expected 10, got 3"):
        decode_frame(kept_frame(), sample_rules(span=WIDE_SPAN))
    all_rows = sample_rows(span=WIDE_SPAN)
    frame = bytearray(encode_frame(all_rows, LAYER, codec_by_name("bf16"), WIDE_SPAN))
    frame[6] = 1
    with pytest.raises(MalformedFrameError, match="bitmaps expected False, got True"):
        decode_frame(sealed(frame), sample_rules(span=WIDE_SPAN))


def test_all_rows_without_a_bitmap_where_some_were_agreed_are_refused() -> None:
    frame = bytearray(kept_frame())
    frame[6] = 0
    with pytest.raises(MalformedFrameError, match="bitmaps expected True, got False"):
        decode_frame(sealed(frame), kept_rules())
    with pytest.raises(MalformedFrameError, match="rows expected 1, got 2"):
        decode_frame(sample_frame(), sample_rules(counts=(1,)))


@pytest.mark.parametrize("change", [Span(3, 12), Span(3, 14), Span(2, 12), Span(4, 14)])
def test_bitmap_of_another_span_is_refused(change: Span) -> None:
    with pytest.raises(MalformedFrameError, match=r"first position expected|span length expected"):
        decode_frame(kept_frame(), replace(kept_rules(), span=change))


@each_codec
def test_body_one_byte_above_the_limit_is_refused(codec: Codec) -> None:
    largest = max_frame_size(kept_rules(codec.name))
    frame = bytearray(kept_frame(codec.name)[:HEADER_SIZE].ljust(largest + 1, b"\0"))
    frame[28:32] = struct.pack("<I", largest + 1 - HEADER_SIZE)
    with pytest.raises(MalformedFrameError, match=r"body size expected \d+ to \d+, got"):
        decode_frame(sealed(frame), kept_rules(codec.name), ROTARY)


@each_codec
def test_body_below_the_smallest_is_refused(codec: Codec) -> None:
    """An entropy codec's payload may be any size but none; the others' have one size."""
    size = 2 if not codec.is_fixed_size else len(kept_frame(codec.name)) - HEADER_SIZE - 1
    frame = bytearray(kept_frame(codec.name)[: HEADER_SIZE + size])
    frame[28:32] = struct.pack("<I", size)
    with pytest.raises(MalformedFrameError, match=rf"expected \d+ to \d+, got {size}"):
        decode_frame(sealed(frame), kept_rules(codec.name), ROTARY)


@each_codec
@pytest.mark.parametrize("positions", [[range(3, 13)] * 3, RAGGED], ids=["all rows", "ragged"])
def test_keys_come_out_after_rope_whatever_the_codec_sends(
    codec: Codec, positions: Sequence[Sequence[int]]
) -> None:
    shape = replace(THREE_HEADS, head_dim=6)
    rotary, random = rotary_of(6), np.random.default_rng(0)
    rows = sample_rows(shape=shape, positions=positions)
    rows = replace(rows, keys=random.normal(size=rows.keys.shape).astype(np.float32))
    frame = encode_frame(rows, LAYER, codec, WIDE_SPAN, rotary)
    rules = sample_rules(codec.name, shape=shape, span=WIDE_SPAN, counts=rows.counts)
    decoded = decode_frame(frame, rules, rotary)
    sent = rotary.undo(rows.keys, rows.positions) if codec.keys_before_rope else rows.keys
    got = rotary.undo(decoded.keys, rows.positions) if codec.keys_before_rope else decoded.keys
    bound, _ = codec.error_bound(sent, rows.values, rows.counts)
    assert (np.abs(got - sent) <= bound + 1e-5).all()


@pytest.mark.parametrize("name", ["int4", "entropy-medium"])
def test_codec_of_keys_before_rope_needs_the_models_rotary(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} sends keys before RoPE"):
        encode_frame(sample_rows(), LAYER, codec_by_name(name), SPAN)
    with pytest.raises(ValueError, match=f"{name} sends keys before RoPE"):
        decode_frame(sample_frame(name), sample_rules(name))


@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16", "int8"])
def test_codec_of_keys_after_rope_needs_no_rotary(name: str) -> None:
    assert decode_frame(kept_frame(name), kept_rules(name)).positions.tolist() == list(KEPT)
