"""Payloads: their bytes cannot change unnoticed, and hostile ones never become rows."""

import struct
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.codecs import CODECS, Codec, codec_by_name
from fedattn.core.errors import CorruptFrameError

HEAD_DIM = 2
EXACT = tuple(codec for codec in CODECS if codec.is_fixed_size)
each_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)


class Golden(NamedTuple):
    """Two rows of one head, and their payload."""

    payload: str
    keys: tuple[float, float, float, float]
    values: tuple[float, float, float, float]


ROWS = (1.0, -2.0, 16.0, -2.0), (0.0, 15.0, 14.0, -1.0)
STORED = "01 0a00 f5ff"
"""DEFLATE block of ten bytes, not compressed: last, length, its complement (RFC 1951, 3.2.4)."""
LEVELS = "827e 80808381 817f 8000"
"""Mean levels 2 -2, keys 0 0 3 1, values 1 -1 0 -128."""
DECODED = ((2.0, -2.0, 3.5, -1.5), (0.25, -0.25, 0.0, -32.0))
STEPS = "0000003f 0000803f 0000803e"
GOLDEN = {
    # K, then V
    "fp32": Golden("0000803f 000000c0 00008041 000000c0 00000000 00007041 00006041 000080bf",
                   *ROWS),
    "fp16": Golden("003c 00c0 004c 00c0 0000 804b 004b 00bc", *ROWS),
    "bf16": Golden("803f 00c0 8041 00c0 0000 7041 6041 80bf", *ROWS),
    # scales of K: 1, 0.5; of V: 2, 2^-24, the smallest there is; levels of K; of V
    "int8": Golden("003c 0038 0040 0100 7f c0 81 01 40 81 00 00",
                   (127.0, -64.0, -63.5, 0.5), (128.0, -254.0, 0.0, 0.0)),
    # floors of K: 1, -2; steps: 1, 2^-24; floors of V: 0, -1; steps: 1, 1; levels of K; of V
    "int4": Golden("003c 00c0 003c 0100 0000 00bc 003c 003c 00 0f f0 0f", *ROWS),
    # steps of K, its means, V: 0.5, 1, 0.25; then the levels
    "entropy-finest": Golden(f"{STEPS} {STORED} {LEVELS}", *DECODED),
    "entropy-fine": Golden(f"{STEPS} {STORED} {LEVELS}", *DECODED),
    "entropy-medium": Golden(f"{STEPS} {STORED} {LEVELS}", *DECODED),
    "entropy-coarse": Golden(f"{STEPS} {STORED} {LEVELS}", *DECODED),
}  # fmt: skip


@each_codec
def test_golden_payload_is_read_as_the_rows_written_beside_it(codec: Codec) -> None:
    golden = GOLDEN[codec.name]
    payload = bytes.fromhex(golden.payload)
    assert len(payload) <= codec.max_payload_size(HEAD_DIM, (2,))
    keys, values = codec.decode(memoryview(payload), HEAD_DIM, (2,))
    assert tuple(keys.reshape(-1).tolist()) == golden.keys
    assert tuple(values.reshape(-1).tolist()) == golden.values


@pytest.mark.parametrize("codec", EXACT, ids=lambda codec: codec.name)
def test_rows_are_written_as_the_golden_payload(codec: Codec) -> None:
    golden = GOLDEN[codec.name]
    both = np.array([golden.keys, golden.values], dtype=np.float32).reshape(2, 2, 2)
    assert codec.encode(both[0], both[1], (2,)).hex() == bytes.fromhex(golden.payload).hex()


@pytest.mark.parametrize(
    ("name", "number_format", "count"),
    [("int8", "<e", 4), ("int4", "<e", 8), ("entropy-finest", "<f", 3),
     ("entropy-fine", "<f", 3), ("entropy-medium", "<f", 3), ("entropy-coarse", "<f", 3)],
)  # fmt: skip
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_scale_floor_or_step_that_is_not_finite_is_refused(
    name: str, number_format: str, count: int, number: float
) -> None:
    for place in range(count):
        payload = bytearray.fromhex(GOLDEN[name].payload)
        struct.pack_into(number_format, payload, place * struct.calcsize(number_format), number)
        with pytest.raises(CorruptFrameError, match=f"{name} frame holds NaN or infinity"):
            codec_by_name(name).decode(memoryview(payload), HEAD_DIM, (2,))


@pytest.mark.parametrize("name", ["int8", "int4"])
@pytest.mark.parametrize("sign", [1, -1])
def test_largest_scales_with_the_largest_levels_stay_finite(name: str, sign: int) -> None:
    codec = codec_by_name(name)
    num_halves = {"int8": 4, "int4": 8}[name]
    halves = struct.pack("<e", sign * 65504.0) * num_halves
    for fill in (b"\x00", b"\x7f", b"\x80", b"\xff"):
        payload = halves.ljust(codec.max_payload_size(HEAD_DIM, (2,)), fill)
        assert np.isfinite(codec.decode(memoryview(payload), HEAD_DIM, (2,))).all()


@each_codec
@given(num_rows=st.integers(1, 40), data=st.data())
def test_noise_of_the_right_size_is_read_as_finite_rows_or_refused(
    codec: Codec, num_rows: int, data: st.DataObject
) -> None:
    size = codec.max_payload_size(HEAD_DIM, (num_rows,))
    noise = data.draw(st.binary(min_size=size, max_size=size))
    try:
        decoded = codec.decode(memoryview(noise), HEAD_DIM, (num_rows,))
    except CorruptFrameError:
        return
    assert np.isfinite(decoded).all()
    assert np.shape(decoded) == (2, num_rows, 2)


def test_every_codec_has_a_golden_payload() -> None:
    assert set(GOLDEN) == {codec.name for codec in CODECS}
