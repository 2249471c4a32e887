"""Raw codecs: exact size, the rounding of the format, and finite numbers only."""

import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedattn.core.codecs import Codec, codec_by_name
from fedattn.core.codecs.raw import RAW_CODECS, RawCodec
from fedattn.core.errors import CorruptFrameError
from fedattn.core.types import FloatArray

HEAD_DIM = 3


class Normal(NamedTuple):
    """Smallest and largest normal number of a format."""

    low: float
    high: float


NORMAL = {
    "fp32": Normal(2.0**-126, float(np.finfo(np.float32).max)),
    "fp16": Normal(2.0**-14, 65504.0),
    "bf16": Normal(2.0**-126, float.fromhex("0x1.fep127")),
}
each_codec = pytest.mark.parametrize("codec", RAW_CODECS, ids=lambda codec: codec.name)


def rows_of(codec: Codec, num_rows: int) -> st.SearchStrategy[FloatArray]:
    """K and V stacked, [2, N, D], zero or inside the normal range of the format."""
    low, high = NORMAL[codec.name]
    magnitudes = st.floats(low, high, width=32)
    elements = st.one_of(st.just(0.0), magnitudes, magnitudes.map(lambda x: -x))
    return hnp.arrays(np.float32, (2, num_rows, HEAD_DIM), elements=elements)


def through(codec: Codec, scalars: npt.ArrayLike) -> FloatArray:
    """The scalars after encoding and decoding, each as a key of one row."""
    keys = np.asarray(scalars, dtype=np.float32).reshape(-1, 1)
    payload = codec.encode(keys, np.zeros_like(keys), (len(keys),))
    return codec.decode(memoryview(payload), 1, (len(keys),))[0].reshape(-1)


def from_bits(*bits: int) -> FloatArray:
    return np.array(bits, dtype=np.uint32).view(np.float32)


@each_codec
@given(data=st.data(), num_rows=st.integers(0, 4))
def test_decoded_rows_stay_within_the_formats_relative_error(
    codec: RawCodec, data: st.DataObject, num_rows: int
) -> None:
    both = data.draw(rows_of(codec, num_rows))
    payload = codec.encode(both[0], both[1], (num_rows,))
    assert len(payload) == codec.max_payload_size(HEAD_DIM, (num_rows,))
    decoded = np.stack(codec.decode(memoryview(payload), HEAD_DIM, (num_rows,)))
    assert decoded.dtype == np.float32
    assert decoded.shape == both.shape
    wide = both.astype(np.float64)
    assert (np.abs(decoded - wide) <= codec.relative_error * np.abs(wide)).all()


@pytest.mark.parametrize(("name", "item_size"), [("fp32", 4), ("fp16", 2), ("bf16", 2)])
def test_max_payload_size_counts_keys_and_values(name: str, item_size: int) -> None:
    codec = codec_by_name(name)
    assert codec.max_payload_size(HEAD_DIM, (5, 0, 2)) == 2 * 7 * 3 * item_size
    assert codec.max_payload_size(HEAD_DIM, (0, 0)) == 0


@each_codec
def test_keys_come_before_values_and_heads_before_rows(codec: Codec) -> None:
    keys = np.arange(6, dtype=np.float32).reshape(2, 3)
    payload = codec.encode(keys, keys + 6, (1, 1))
    in_order = codec.decode(memoryview(payload), 1, (6,))
    assert np.concatenate(in_order).reshape(-1).tolist() == list(range(12))


@each_codec
def test_rows_in_any_memory_order_give_the_same_bytes(codec: Codec) -> None:
    keys = np.arange(24, dtype=np.float32).reshape(8, 3)
    strided = np.asfortranarray(keys)
    written = codec.encode(keys, keys[::-1].copy(), (8,))
    assert codec.encode(strided, strided[::-1], (8,)) == written


def test_fp32_keeps_every_finite_bit() -> None:
    bits = (0x00000000, 0x80000000, 0x00000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF)
    assert through(codec_by_name("fp32"), from_bits(*bits)).view(np.uint32).tolist() == list(bits)


@pytest.mark.parametrize(
    ("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)], ids=["bf16", "fp16"]
)
def test_rounding_equals_torch_for_ties_and_their_neighbours(name: str, dtype: torch.dtype) -> None:
    high = np.arange(1 << 16, dtype=np.uint32) << 16
    low = [0x0000, 0x0001, 0x0FFF, 0x1000, 0x1001, 0x2000, 0x7FFF, 0x8000, 0x8001, 0xFFFF]
    scalars = np.concatenate([high + part for part in low]).view(np.float32)
    scalars = scalars[np.abs(scalars) <= NORMAL[name].high]
    assert len(scalars) > 100_000
    expected = torch.from_numpy(scalars).to(dtype).to(torch.float32).numpy()
    assert np.array_equal(
        through(codec_by_name(name), scalars).view(np.uint32), expected.view(np.uint32)
    )


@pytest.mark.parametrize(
    ("given_bits", "kept_bits"),
    [
        (0x3F808000, 0x3F800000),  # tie, even below
        (0x3F818000, 0x3F820000),  # tie, even above
        (0x3F808001, 0x3F810000),  # just above a tie
        (0x3F817FFF, 0x3F810000),  # just below a tie
        (0x3FFFFFFF, 0x40000000),  # carries into the exponent
        (0x80000000, 0x80000000),  # minus zero
        (0x80000001, 0x80000000),  # the smallest negative number
    ],
)
def test_bf16_rounds_to_nearest_and_ties_to_even(given_bits: int, kept_bits: int) -> None:
    kept = through(codec_by_name("bf16"), from_bits(given_bits))
    assert int(kept.view(np.uint32)[0]) == kept_bits


def test_fp16_keeps_numbers_below_its_normal_range_to_half_its_smallest_step() -> None:
    scalars = np.geomspace(1e-9, 2.0**-14, 500).astype(np.float32)
    assert np.abs(through(codec_by_name("fp16"), scalars) - scalars).max() <= 2.0**-25


@pytest.mark.parametrize("name", ["fp16", "bf16"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_largest_number_of_the_format_is_kept(name: str, sign: float) -> None:
    largest = sign * NORMAL[name].high
    assert through(codec_by_name(name), [largest]).tolist() == [largest]


@pytest.mark.parametrize(
    ("name", "scalar"),
    [
        ("fp16", 65536.0),
        ("fp16", -65536.0),
        ("fp16", 65520.0),
        ("fp16", float("inf")),
        ("bf16", 3.4e38),
        ("bf16", -3.4e38),
    ],
)
def test_number_outside_the_format_is_refused_with_the_format_named(
    name: str, scalar: float
) -> None:
    keys = np.array([[0.0], [scalar]], dtype=np.float32)
    zeros = np.zeros_like(keys)
    for pair in ((keys, zeros), (zeros, keys)):
        with pytest.raises(OverflowError, match=name):
            codec_by_name(name).encode(*pair, (2,))


@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("name", NORMAL)
def test_nan_never_arrives_as_a_number(name: str, bits: int) -> None:
    with pytest.raises((OverflowError, CorruptFrameError)):
        through(codec_by_name(name), from_bits(bits))


NOT_FINITE = {
    "fp32": ("<I", (0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001)),
    "fp16": ("<H", (0x7C00, 0xFC00, 0x7E00, 0x7C01)),
    "bf16": ("<H", (0x7F80, 0xFF80, 0x7FC0, 0x7F81)),
}


@each_codec
@pytest.mark.parametrize("place", [0, 5, 6, 11])
def test_payload_with_infinity_or_nan_is_refused(codec: Codec, place: int) -> None:
    item, patterns = NOT_FINITE[codec.name]
    payload = bytearray(codec.max_payload_size(HEAD_DIM, (2,)))
    for bits in patterns:
        struct.pack_into(item, payload, place * struct.calcsize(item), bits)
        with pytest.raises(CorruptFrameError, match=f"{codec.name} frame holds NaN or infinity"):
            codec.decode(memoryview(payload), HEAD_DIM, (2,))
