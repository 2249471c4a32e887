"""KV frames: the wire format cannot change unnoticed, and nothing but a fitting frame is read."""

import struct
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.codecs import CODEC_NAMES, codec_by_name
from fedattn.core.errors import CorruptFrameError, FrameError, MalformedFrameError
from fedattn.core.frames import HEADER_SIZE, MAX_FRAME_SIZE, decode_frame, encode_frame, frame_size
from fedattn.core.spans import Span
from fedattn.core.types import KvRows, KvShape
from tests.unit.samples import LAYER, SENDER, SHAPE, SPAN, sample_frame, sample_rows, sample_rules

GOLDEN = {
    "fp32": "464b5631 01010000 02000100 02000000 02000000 03000000 20000000 31ed3066"
    "0000fac0 0000f8c0 0000f6c0 0000f4c0 0000f2c0 0000f0c0 0000eec0 0000ecc0",
    "fp16": "464b5631 01020000 02000100 02000000 02000000 03000000 10000000 76268cbc"
    "d0c7c0c7 b0c7a0c7 90c780c7 70c760c7",
    "bf16": "464b5631 01030000 02000100 02000000 02000000 03000000 10000000 497966f2"
    "fac0f8c0 f6c0f4c0 f2c0f0c0 eec0ecc0",
}
OFFSETS = {"magic": 0, "version": 4, "codec": 5, "encoding": 6, "reserved": 7, "layer": 8,
           "heads": 10, "head size": 12, "reserved too": 14, "rows": 16, "first position": 20,
           "payload size": 24}  # fmt: skip
each_codec = pytest.mark.parametrize("name", CODEC_NAMES)


def same_rows(left: KvRows, right: KvRows) -> bool:
    return (
        np.array_equal(left.keys, right.keys)
        and np.array_equal(left.values, right.values)
        and np.array_equal(left.positions, right.positions)
    )


def forged(field: str, packed: bytes, frame: bytes | None = None) -> bytes:
    """A frame with one header field overwritten and the checksum made right again."""
    whole = bytearray(frame or sample_frame())
    whole[OFFSETS[field] : OFFSETS[field] + len(packed)] = packed
    checksum = zlib.crc32(whole[HEADER_SIZE:], zlib.crc32(whole[:28]))
    whole[28:32] = struct.pack("<I", checksum)
    return bytes(whole)


@each_codec
def test_frame_of_every_codec_equals_its_golden_bytes(name: str) -> None:
    golden = bytes.fromhex(GOLDEN[name])
    assert sample_frame(name).hex() == golden.hex()
    assert same_rows(decode_frame(golden, sample_rules(name)), sample_rows())


def test_header_is_laid_out_as_documented() -> None:
    header = struct.unpack_from("<4sBBBBHHHHIII", sample_frame())
    assert header == (b"FKV1", 1, 3, 0, 0, LAYER, 1, 2, 0, len(SPAN), SPAN.start, 16)


@each_codec
@given(heads=st.integers(1, 3), head_dim=st.integers(1, 4), start=st.integers(0, 2**20),
       length=st.integers(1, 5), layer=st.integers(0, 3))  # fmt: skip
def test_any_rows_come_out_as_they_went_in(
    name: str, heads: int, head_dim: int, start: int, length: int, layer: int
) -> None:
    shape = KvShape(num_layers=4, num_kv_heads=heads, head_dim=head_dim)
    span = Span(start, start + length)
    rows, rules = sample_rows(shape=shape, span=span), sample_rules(name, shape=shape, span=span)
    frame = encode_frame(rows, layer, rules.codec)
    assert len(frame) == frame_size(rules.codec, shape, length)
    for buffer in (frame, bytearray(frame), memoryview(frame)):
        assert same_rows(decode_frame(buffer, rules), rows)


@each_codec
def test_every_single_flipped_bit_is_noticed(name: str) -> None:
    frame, rules = sample_frame(name), sample_rules(name)
    for bit in range(len(frame) * 8):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameError, match=SENDER):
            decode_frame(flipped, rules)


@each_codec
def test_every_truncation_and_every_surplus_is_refused(name: str) -> None:
    frame, rules = sample_frame(name), sample_rules(name)
    for size in range(len(frame)):
        with pytest.raises(MalformedFrameError, match=SENDER):
            decode_frame(frame[:size], rules)
    with pytest.raises(MalformedFrameError, match=rf"expected {len(frame)} bytes, got"):
        decode_frame(frame + b"\0", rules)


def test_changed_payload_is_called_corrupt_with_both_checksums() -> None:
    frame = bytearray(sample_frame())
    frame[-1] ^= 1
    with pytest.raises(CorruptFrameError, match=r"checksum expected f2667949, got [0-9a-f]{8};"):
        decode_frame(frame, sample_rules())


@pytest.mark.parametrize(
    ("field", "packed", "complaint"),
    [
        ("magic", b"FKV2", "expected magic b'FKV1'"),
        ("version", b"\2", "version 2; upgrade the older node"),
        ("encoding", b"\1", "expected magic"),
        ("reserved", b"\1", "zero reserved bytes"),
        ("reserved too", b"\0\1", "zero reserved bytes"),
        ("codec", b"\xee", "codec 238 is not known here"),
        ("codec", b"\1", "at layer 2: codec expected bf16, got fp32"),
        ("heads", b"\2\0", "at layer 2: key/value heads expected 1, got 2"),
        ("head size", b"\1\0", "at layer 2: head size expected 2, got 1"),
        ("rows", b"\3\0\0\0", "at layer 2: rows expected 2, got 3"),
        ("rows", b"\0\0\0\0", "at layer 2: rows expected 2, got 0"),
        ("first position", b"\4\0\0\0", "at layer 2: first position expected 3, got 4"),
        ("payload size", b"\x0f\0\0\0", "at layer 2: payload size expected 16, got 15"),
        ("layer", b"\4\0", "at layer 4: layer in range expected True, got False"),
        ("layer", b"\xff\xff", "at layer 65535: layer in range"),
    ],
)
def test_well_sealed_frame_that_does_not_fit_is_refused_by_field(
    field: str, packed: bytes, complaint: str
) -> None:
    with pytest.raises(MalformedFrameError) as caught:
        decode_frame(forged(field, packed), sample_rules())
    assert str(caught.value).startswith(f"frame from {SENDER}")
    assert complaint in str(caught.value)


@pytest.mark.parametrize("field", ["rows", "payload size"])
def test_huge_declared_size_is_refused_before_any_memory_is_taken(field: str) -> None:
    frame, rules = forged(field, b"\xff\xff\xff\xff"), sample_rules()
    tracemalloc.start()
    try:
        with pytest.raises(MalformedFrameError, match=f"{field} expected"):
            decode_frame(frame, rules)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_frame_above_the_limit_is_refused_even_if_its_session_is_that_large() -> None:
    shape = KvShape(num_layers=4, num_kv_heads=1024, head_dim=1024)
    span = Span(0, MAX_FRAME_SIZE // (shape.values_per_row * 4))
    rules = sample_rules("fp32", shape=shape, span=span)
    fields = struct.pack("<4sBBBBHHHHIII", b"FKV1", 1, 1, 0, 0, 0, 1024, 1024, 0, len(span), 0,
                         MAX_FRAME_SIZE)  # fmt: skip
    with pytest.raises(MalformedFrameError, match="frame within the size limit"):
        decode_frame(fields + bytes(4), rules)


def test_sealed_frame_with_nan_is_corrupt() -> None:
    frame = bytearray(sample_frame())
    frame[-2:] = b"\xc0\x7f"
    with pytest.raises(CorruptFrameError, match="NaN or infinity"):
        decode_frame(forged("version", b"\1", bytes(frame)), sample_rules())


def test_rows_with_a_gap_cannot_be_encoded() -> None:
    gapped = replace(sample_rows(), positions=np.array([3, 5], dtype=np.int64))
    with pytest.raises(ValueError, match="contiguous positions only"):
        encode_frame(gapped, LAYER, codec_by_name("bf16"))


@pytest.mark.parametrize("positions", [[3, 9, 5], [3, 3, 5], [5, 4, 3]])
def test_rows_refuse_positions_that_do_not_increase(positions: list[int]) -> None:
    rows = sample_rows(span=Span(3, 6))
    with pytest.raises(ValueError, match="increasing"):
        replace(rows, positions=np.array(positions, dtype=np.int64))


@given(st.binary(max_size=96))
def test_random_bytes_are_refused(noise: bytes) -> None:
    with pytest.raises(FrameError):
        decode_frame(noise, sample_rules())


@each_codec
@given(data=st.data())
def test_sealed_noise_is_read_as_finite_rows_or_refused(name: str, data: st.DataObject) -> None:
    rules, frame = sample_rules(name), bytearray(sample_frame(name))
    start = data.draw(st.integers(0, len(frame) - 1))
    noise = data.draw(st.binary(max_size=8))
    frame[start : start + len(noise)] = noise
    try:
        rows = decode_frame(forged("version", bytes(frame[4:5]), bytes(frame)), rules)
    except FrameError:
        return
    assert rows.keys.shape == (SHAPE.num_kv_heads, len(SPAN), SHAPE.head_dim)
    assert np.isfinite(rows.keys).all()
    assert np.isfinite(rows.values).all()
    assert rows.positions.tolist() == [3, 4]


def test_every_codec_has_a_golden_frame() -> None:
    assert set(GOLDEN) == set(CODEC_NAMES)
