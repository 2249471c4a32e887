"""KV frames: the wire format cannot change unnoticed, and nothing but a fitting frame is read."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.codecs import CODECS, codec_by_name
from fedattn.core.errors import (
    CorruptFrameError,
    FrameError,
    InvalidRequestError,
    MalformedFrameError,
)
from fedattn.core.frame_headers import MAX_FRAME_SIZE, max_frame_size
from fedattn.core.frames import decode_frame, encode_frame
from fedattn.core.spans import Span
from fedattn.core.types import KvShape
from tests.fuzz.memory import peak_bytes
from tests.harness.samples import (
    LAYER,
    ROTARY,
    SENDER,
    SHAPE,
    SPAN,
    same_rows,
    sample_frame,
    sample_rows,
    sample_rules,
    sealed,
)

RAW = ("fp32", "fp16", "bf16")
GOLDEN = {
    # header fields, checksum, payload
    "fp32": ("04010000", "20000000", "88eb4695",
             "0000fac0 0000f8c0 0000f6c0 0000f4c0 0000f2c0 0000f0c0 0000eec0 0000ecc0"),
    "fp16": ("04020000", "10000000", "01bb3fda", "d0c7c0c7 b0c7a0c7 90c780c7 70c760c7"),
    "bf16": ("04030000", "10000000", "6c194f9d", "fac0f8c0 f6c0f4c0 f2c0f0c0 eec0ecc0"),
}  # fmt: skip
OFFSETS = {"magic": 0, "version": 4, "codec": 5, "encoding": 6, "sealing": 7, "layer": 8,
           "heads": 10, "head size": 12, "reserved": 14, "rows": 16, "first position": 20,
           "span length": 24, "body size": 28}  # fmt: skip
each_codec = pytest.mark.parametrize("name", [codec.name for codec in CODECS])
each_raw_codec = pytest.mark.parametrize("name", RAW)


def forged(field: str, packed: bytes) -> bytes:
    """A frame with one header field overwritten and the checksum made right again."""
    whole = bytearray(sample_frame())
    whole[OFFSETS[field] : OFFSETS[field] + len(packed)] = packed
    return sealed(whole)


@each_raw_codec
def test_frame_equals_its_golden_bytes(name: str) -> None:
    version, size, checksum, payload = GOLDEN[name]
    fields = f"464b5631 {version} 02000100 02000000 02000000 03000000 02000000 {size}"
    golden = bytes.fromhex(f"{fields} {checksum} {payload}")
    assert sample_frame(name).hex() == golden.hex()
    assert same_rows(decode_frame(golden, sample_rules(name)), sample_rows())


def test_header_is_laid_out_as_documented() -> None:
    header = struct.unpack_from("<4sBBBBHHHHIIII", sample_frame())
    assert header == (b"FKV1", 4, 3, 0, 0, LAYER, 1, 2, 0, 2, SPAN.start, len(SPAN), 16)


@each_raw_codec
@given(heads=st.integers(1, 3), head_dim=st.integers(1, 4), start=st.integers(0, 2**20),
       length=st.integers(1, 5), layer=st.integers(0, 3))  # fmt: skip
def test_any_rows_come_out_as_they_went_in(
    name: str, heads: int, head_dim: int, start: int, length: int, layer: int
) -> None:
    shape = KvShape(num_layers=4, num_kv_heads=heads, head_dim=head_dim)
    span = Span(start, start + length)
    rows, rules = sample_rows(shape=shape, span=span), sample_rules(name, shape=shape, span=span)
    frame = encode_frame(rows, layer, rules.codec, span)
    assert len(frame) == max_frame_size(rules)
    for buffer in (frame, bytearray(frame), memoryview(frame)):
        assert same_rows(decode_frame(buffer, rules), rows)


@each_codec
def test_every_single_flipped_bit_is_noticed(name: str) -> None:
    frame, rules = sample_frame(name), sample_rules(name)
    for bit in range(len(frame) * 8):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameError, match=SENDER):
            decode_frame(flipped, rules, ROTARY)


@each_codec
def test_every_truncation_and_every_surplus_is_refused(name: str) -> None:
    frame, rules = sample_frame(name), sample_rules(name)
    for size in range(len(frame)):
        with pytest.raises(MalformedFrameError, match=SENDER):
            decode_frame(frame[:size], rules, ROTARY)
    with pytest.raises(MalformedFrameError, match=rf"expected {len(frame)} bytes, got"):
        decode_frame(frame + b"\0", rules, ROTARY)


def test_changed_payload_is_called_corrupt_with_both_checksums() -> None:
    frame = bytearray(sample_frame())
    frame[-1] ^= 1
    with pytest.raises(CorruptFrameError, match=r"checksum expected [0-9a-f]{8}, got [0-9a-f]{8};"):
        decode_frame(frame, sample_rules())


@pytest.mark.parametrize(
    ("field", "packed", "complaint"),
    [
        ("magic", b"FKV2", "expected magic b'FKV1'"),
        ("version", b"\1", "version 1, encoding 0, sealing 0; upgrade the older node"),
        ("encoding", b"\3", "a known position encoding"),
        ("encoding", b"\1", "at layer 2: bitmaps expected False, got True"),
        ("encoding", b"\2", "at layer 2: bitmaps expected False, got True"),
        ("sealing", b"\2", "encoding 0, sealing 2;"),
        ("sealing", b"\1", "at layer 2: sealed expected False, got True"),
        ("reserved", b"\0\1", "zero reserved bytes"),
        ("codec", b"\xee", "codec 238 is not known here"),
        ("codec", b"\1", "at layer 2: codec expected bf16, got fp32"),
        ("heads", b"\2\0", "at layer 2: key/value heads expected 1, got 2"),
        ("head size", b"\1\0", "at layer 2: head size expected 2, got 1"),
        ("rows", b"\3\0\0\0", "at layer 2: rows expected 2, got 3"),
        ("rows", b"\0\0\0\0", "at layer 2: rows expected 2, got 0"),
        ("first position", b"\4\0\0\0", "at layer 2: first position expected 3, got 4"),
        ("span length", b"\3\0\0\0", "at layer 2: span length expected 2, got 3"),
        ("body size", b"\x0f\0\0\0", "at layer 2: body size expected 16 to 16, got 15"),
        ("body size", b"\x11\0\0\0", "at layer 2: body size expected 16 to 16, got 17"),
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


@pytest.mark.parametrize("field", ["rows", "span length", "body size"])
def test_huge_declared_size_is_refused_before_any_memory_is_taken(field: str) -> None:
    frame, rules = forged(field, b"\xff\xff\xff\xff"), sample_rules()

    def decode() -> None:
        with pytest.raises(MalformedFrameError, match=f"{field} expected|size limit"):
            decode_frame(frame, rules)

    assert peak_bytes(decode, tries=3) < 1 << 20


def test_frame_above_the_limit_is_refused_even_if_its_session_is_that_large() -> None:
    shape = KvShape(num_layers=4, num_kv_heads=1024, head_dim=1024)
    span = Span(0, MAX_FRAME_SIZE // (shape.values_per_row * 4))
    rules = sample_rules("fp32", shape=shape, span=span)
    fields = struct.pack("<4sBBBBHHHHIIII", b"FKV1", 4, 1, 0, 0, 0, 1024, 1024, 0, rules.num_rows,
                         0, len(span), MAX_FRAME_SIZE)  # fmt: skip
    with pytest.raises(MalformedFrameError, match="frame within the size limit"):
        decode_frame(fields + bytes(4), rules)


def test_sealed_frame_with_nan_is_corrupt() -> None:
    frame = bytearray(sample_frame())
    frame[-2:] = b"\xc0\x7f"
    with pytest.raises(CorruptFrameError, match="NaN or infinity"):
        decode_frame(sealed(frame), sample_rules())


@pytest.mark.parametrize(
    "positions", [[(3, 5)], [(2, 3)], [(2,)], [(5,)], [(3, 4, 5)], [(3, 4), (5,)], [(2,), (), (4,)]]
)
def test_rows_outside_the_span_cannot_be_encoded(positions: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="are not all of"):
        encode_frame(sample_rows(positions=positions), LAYER, codec_by_name("bf16"), SPAN)


def test_scalar_outside_the_codec_is_refused_with_the_layer() -> None:
    rows = sample_rows()
    loud = replace(rows, values=rows.values * np.float32(1e6))
    with pytest.raises(InvalidRequestError, match="layer 2: KV value outside fp16"):
        encode_frame(loud, LAYER, codec_by_name("fp16"), SPAN)


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
        rows = decode_frame(sealed(frame), rules, ROTARY)
    except FrameError:
        return
    assert rows.keys.shape == (SHAPE.num_kv_heads * len(SPAN), SHAPE.head_dim)
    assert np.isfinite(rows.keys).all()
    assert np.isfinite(rows.values).all()
    assert rows.positions.tolist() == [3, 4]
