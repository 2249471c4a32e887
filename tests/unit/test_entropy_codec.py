"""Entropy coding: the codes it writes, sizes it keeps to, and streams it refuses."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.codecs import CODEC_LADDER, codec_by_name
from fedattn.core.errors import CorruptFrameError
from fedattn.core.types import FloatArray, HeadCounts
from tests.fuzz.memory import peak_bytes
from tests.harness.strategies import head_rows

NUM_ROWS = 3
NUM_LEVELS = 2 + 2 * 2 * NUM_ROWS
STEPS = struct.pack("<3f", 0.5, 1.0, 0.25)
each_name = pytest.mark.parametrize("name", CODEC_LADDER)


def deflated(codes: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflater.compress(codes) + deflater.flush()


def decode(payload: bytes, num_rows: int = NUM_ROWS) -> tuple[FloatArray, FloatArray]:
    return codec_by_name("auto").decode(memoryview(payload), 2, (num_rows,))


def normal_rows(*shape: int, scale: float = 1.0) -> FloatArray:
    return (np.random.default_rng(0).normal(size=shape) * scale).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "scales", "codes"),
    [  # means 4 -4, around which the root mean square is 0.7071; 11 half ones are 3.8891
        # so 1.1109 -0.1109, -0.8891 -0.1109 are left, root mean square 0.7158
        ("entropy-finest", (0.10737, 0.353553, 0.35), [11, -11, 10, -1, -8, -1, 3, -3, 3, 3]),
        ("entropy-fine", (0.21473, 0.353553, 0.7), [11, -11, 5, -1, -4, -1, 1, -1, 1, 1]),
        ("entropy-medium", (0.35789, 0.353553, 1.1), [11, -11, 3, 0, -2, 0, 1, -1, 1, 1]),
        ("entropy-coarse", (0.57262, 0.353553, 1.5), [11, -11, 2, 0, -2, 0, 1, -1, 1, 1]),
    ],
)
def test_worked_example_is_written_level_by_level(
    name: str, scales: tuple[float, ...], codes: list[int]
) -> None:
    keys = np.array([[5, -4], [3, -4]], dtype=np.float32)
    values = np.array([[1, -1], [1, 1]], dtype=np.float32)
    payload = codec_by_name(name).encode(keys, values, (2,))
    assert struct.unpack("<3f", payload[:12]) == pytest.approx(scales, rel=1e-4)
    written = zlib.decompress(payload[12:], wbits=-15)
    assert [byte - 128 for byte in written] == codes


@each_name
def test_offset_of_a_channel_costs_keys_less_precision_than_values(name: str) -> None:
    rows = normal_rows(64, 8) + 1000 * normal_rows(1, 8)
    key_bound, value_bound = codec_by_name(name).error_bound(rows, rows, (64,))
    assert key_bound.max() < value_bound.max() / 4


@each_name
def test_offset_of_every_channel_costs_keys_next_to_nothing(name: str) -> None:
    rows = normal_rows(64, 8)
    errors = []
    for offset in (0.0, 30.0):
        keys = (rows + offset * np.sign(normal_rows(1, 8))).astype(np.float32)
        codec = codec_by_name(name)
        decoded, _ = codec.decode(memoryview(codec.encode(keys, rows, (64,))), 8, (64,))
        errors.append(float(np.square(decoded - keys).mean()))
    assert errors[1] < 1.2 * errors[0]


@each_name
@given(rows=head_rows(largest=1e15, smallest=1e-40))
def test_rows_of_any_scale_keep_to_the_size_limit(
    name: str, rows: tuple[FloatArray, HeadCounts]
) -> None:
    codec, (both, counts) = codec_by_name(name), rows
    payload = codec.encode(both[0], both[1], counts)
    assert len(payload) <= codec.max_payload_size(both.shape[2], counts)


@each_name
def test_head_without_rows_takes_no_byte(name: str) -> None:
    rows, codec = normal_rows(9, 8), codec_by_name(name)
    assert codec.encode(rows, rows, (0, 5, 0, 4)) == codec.encode(rows, rows, (5, 4))
    assert codec.max_payload_size(8, (0, 5, 0, 4)) == codec.max_payload_size(8, (5, 4))


@each_name
def test_heads_of_different_scales_keep_to_the_size_limit_together(name: str) -> None:
    """Each head's codes are of its own scale, so one table of codes fits them all."""
    codec, counts = codec_by_name(name), (700, 20, 0, 300)
    scales = np.repeat([1e6, 1.0, 1.0, 1e-6], counts)[:, None].astype(np.float32)
    rows = normal_rows(1020, 64) * scales
    payload = codec.encode(rows, rows, counts)
    assert len(payload) <= codec.max_payload_size(64, counts)
    alone = len(codec.encode(rows[:700], rows[:700], (700,)))
    assert len(payload) < 1.1 * alone * 1020 / 700


@each_name
@pytest.mark.parametrize("scale", [1e-18, 1e-20, 1e-22, 1e-24, 1e-30, 1e-38, 1e-44])
def test_rows_too_small_to_be_squared_are_sent_all_the_same(name: str, scale: float) -> None:
    rows, counts = normal_rows(100, 40, scale=scale), (60, 40)
    codec = codec_by_name(name)
    payload = codec.encode(rows, rows, counts)
    decoded, _ = codec.decode(memoryview(payload), 40, counts)
    assert np.abs(decoded - rows).max() <= max(1e-20, 2 * scale)


def test_rows_that_come_out_too_large_are_coded_again_with_larger_scales() -> None:
    """Three even codes and the end of the block are a bad fit for whole bits."""
    codec, counts = codec_by_name("entropy-coarse"), (1500,) * 4
    even = np.random.default_rng(1).uniform(-1, 1, size=(2, 4, 1500, 42)).astype(np.float32)
    payload = codec.encode(even[0].reshape(-1, 42), even[1].reshape(-1, 42), counts)
    assert len(payload) <= codec.max_payload_size(42, counts)
    value_scales = np.frombuffer(payload, dtype="<f4", count=4, offset=32)
    root_mean_square = np.sqrt((even[1].astype(np.float64) ** 2).mean(axis=(1, 2)))
    assert value_scales == pytest.approx(1.5 * 1.25 * root_mean_square, rel=1e-5)


def test_largest_scales_with_the_largest_codes_stay_finite() -> None:
    for scale in (1e30, -1e30):
        for code in (b"\x00", b"\xff"):
            decoded = decode(struct.pack("<3f", *[scale] * 3) + deflated(code * NUM_LEVELS))
            assert np.isfinite(decoded).all()


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("scale", [1.1e30, -1.1e30, 3.4e38, -3.4e38])
def test_step_whose_multiple_could_overflow_is_refused(place: int, scale: float) -> None:
    scales = [1.0, 1.0, 1.0]
    scales[place] = scale
    with pytest.raises(CorruptFrameError, match=r"has a scale above 1e\+30"):
        decode(struct.pack("<3f", *scales) + deflated(bytes(NUM_LEVELS)))


def test_bomb_is_refused_holding_no_more_than_the_declared_codes() -> None:
    """One mebibyte that would inflate to a gibibyte: the same blocks a thousand times."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    mebibyte = deflater.compress(bytes(1 << 20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    bomb = STEPS + mebibyte * 1024 + deflated(b"")
    num_rows = 10_000

    def refuse() -> None:
        with pytest.raises(CorruptFrameError, match=r"expected 40002 codes .* got more"):
            decode(bomb, num_rows)

    codes = 2 + 4 * num_rows
    assert peak_bytes(refuse, tries=3) < len(bomb) + 4 * codes  # zlib keeps what it did not read


@pytest.mark.parametrize("num_codes", [0, 1, NUM_LEVELS - 1, NUM_LEVELS + 1, 100_000])
def test_stream_of_another_number_of_codes_is_refused(num_codes: int) -> None:
    with pytest.raises(CorruptFrameError, match=f"expected {NUM_LEVELS} codes"):
        decode(STEPS + deflated(bytes(num_codes)))


@pytest.mark.parametrize("surplus", [b"\0", b"\xff", b"\x03\x00", deflated(b"again")])
def test_bytes_behind_the_stream_are_refused(surplus: bytes) -> None:
    decode(STEPS + deflated(bytes(NUM_LEVELS)))
    with pytest.raises(CorruptFrameError, match="and the end of the stream"):
        decode(STEPS + deflated(bytes(NUM_LEVELS)) + surplus)


def test_every_truncation_is_refused() -> None:
    whole = codec_by_name("auto").encode(normal_rows(3, 2), normal_rows(3, 2), (3,))
    decode(whole)
    for size in range(len(whole)):
        with pytest.raises(CorruptFrameError, match=r"ends within its scales|expected|no DEFLATE"):
            decode(whole[:size])


def test_stream_that_never_ends_is_refused() -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    unfinished = deflater.compress(bytes(NUM_LEVELS)) + deflater.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(CorruptFrameError, match=f"end of the stream, got {NUM_LEVELS}"):
        decode(STEPS + unfinished)


@pytest.mark.parametrize("wbits", [15, 31])
def test_zlib_and_gzip_containers_are_refused(wbits: int) -> None:
    wrapped = zlib.compress(bytes(NUM_LEVELS), wbits=wbits)
    with pytest.raises(CorruptFrameError, match="entropy-finest frame"):
        decode(STEPS + wrapped)


@given(st.binary(max_size=200))
def test_garbage_is_read_as_finite_rows_or_refused(garbage: bytes) -> None:
    try:
        decoded = decode(STEPS + garbage)
    except CorruptFrameError:
        return
    assert np.isfinite(decoded).all()
