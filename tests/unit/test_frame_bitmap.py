"""Frames of selected rows, of keys before RoPE, and of codecs whose size varies."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.codecs import CODECS, Codec, codec_by_name
from fedattn.core.errors import CorruptFrameError, MalformedFrameError
from fedattn.core.frames import (
    HEADER_SIZE,
    bitmap_size,
    decode_frame,
    encode_frame,
    max_frame_size,
)
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
GOLDEN_FIELDS = "464b5631 03030100 02000100 02000000 03000000 03000000 0a000000 1a000000"
GOLDEN_BITMAP = "0302"  # positions 3 and 4, then 12: bits 0 and 1, then 9
GOLDEN_PAYLOAD = "fac0f8c0 f6c0f4c0 f2c0f0c0 eec0ecc0 eac0e8c0 e6c0e4c0"
each_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)


def with_bitmap(bitmap: bytes) -> bytes:
    frame = bytearray(kept_frame())
    frame[HEADER_SIZE : HEADER_SIZE + 2] = bitmap
    return sealed(frame)


def test_frame_of_selected_rows_equals_its_golden_bytes() -> None:
    fields = bytes.fromhex(GOLDEN_FIELDS)
    golden = sealed(fields + bytes(4) + bytes.fromhex(GOLDEN_BITMAP + GOLDEN_PAYLOAD))
    assert kept_frame().hex() == golden.hex()
    assert same_rows(decode_frame(golden, kept_rules()), sample_rows(positions=KEPT))


@given(st.integers(0, 2**31), st.integers(1, 40), st.data())
def test_any_selection_comes_out_at_its_positions(
    start: int, length: int, data: st.DataObject
) -> None:
    span = Span(start, start + length)
    some = data.draw(st.sets(st.integers(start, span.stop - 1), min_size=1))
    rows = sample_rows(positions=tuple(sorted(some)))
    codec = codec_by_name("bf16")
    frame = encode_frame(rows, LAYER, codec, span)
    assert len(frame) == HEADER_SIZE + bitmap_size(length, len(some)) + 8 * len(some)
    rules = sample_rules(span=span, num_rows=len(some))
    assert len(frame) == max_frame_size(rules)
    assert same_rows(decode_frame(frame, rules), rows)


@pytest.mark.parametrize(
    ("length", "num_rows", "size"), [(8, 8, 0), (8, 7, 1), (9, 1, 2), (16, 1, 2), (17, 16, 3)]
)
def test_bitmap_has_a_bit_for_each_position_unless_all_rows_travel(
    length: int, num_rows: int, size: int
) -> None:
    assert bitmap_size(length, num_rows) == size


@pytest.mark.parametrize(
    ("bitmap", "complaint"),
    [
        ("0300", "got 2"),
        ("0702", "got 4"),
        ("0000", "got 0"),
        ("ffff", "got 16"),
        ("0304", "got 3"),  # the third bit is behind the span
        ("0380", "got 3"),
    ],
)
def test_bitmap_of_other_rows_than_agreed_is_corrupt(bitmap: str, complaint: str) -> None:
    with pytest.raises(
        CorruptFrameError, match="at layer 2: bitmap expected 3 rows within 10"
    ) as e:
        decode_frame(with_bitmap(bytes.fromhex(bitmap)), kept_rules())
    assert complaint in str(e.value)


def test_same_number_of_other_rows_of_the_span_is_fine() -> None:
    rows = decode_frame(with_bitmap(bytes.fromhex("8003")), kept_rules())
    assert rows.positions.tolist() == [10, 11, 12]


def test_bitmap_where_all_rows_were_agreed_is_refused() -> None:
    with pytest.raises(MalformedFrameError, match="rows expected 10, got 3"):
        decode_frame(kept_frame(), sample_rules(span=WIDE_SPAN))
    all_rows = sample_rows(span=WIDE_SPAN)
    frame = bytearray(encode_frame(all_rows, LAYER, codec_by_name("bf16"), WIDE_SPAN))
    frame[6] = 1
    with pytest.raises(MalformedFrameError, match="bitmap expected False, got True"):
        decode_frame(sealed(frame), sample_rules(span=WIDE_SPAN))


def test_all_rows_without_a_bitmap_where_some_were_agreed_are_refused() -> None:
    frame = bytearray(kept_frame())
    frame[6] = 0
    with pytest.raises(MalformedFrameError, match="bitmap expected True, got False"):
        decode_frame(sealed(frame), kept_rules())
    with pytest.raises(MalformedFrameError, match="rows expected 1, got 2"):
        decode_frame(sample_frame(), sample_rules(num_rows=1))


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
def test_keys_come_out_after_rope_whatever_the_codec_sends(codec: Codec) -> None:
    shape = KvShape(num_layers=4, num_kv_heads=2, head_dim=6)
    rotary, random = rotary_of(6), np.random.default_rng(0)
    rows = sample_rows(shape=shape, span=WIDE_SPAN)
    rows = replace(rows, keys=random.normal(size=rows.keys.shape).astype(np.float32))
    frame = encode_frame(rows, LAYER, codec, WIDE_SPAN, rotary)
    decoded = decode_frame(frame, sample_rules(codec.name, shape=shape, span=WIDE_SPAN), rotary)
    sent = rotary.undo(rows.keys, rows.positions) if codec.keys_before_rope else rows.keys
    got = rotary.undo(decoded.keys, rows.positions) if codec.keys_before_rope else decoded.keys
    bound, _ = codec.error_bound(sent, rows.values)
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
