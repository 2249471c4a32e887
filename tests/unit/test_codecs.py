"""What every codec promises: its error, its size, its number, and finite rows only."""

import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedattn.core.codecs import (
    AUTO_CODEC,
    CODEC_LADDER,
    CODEC_NAMES,
    CODECS,
    DEFAULT_CODEC,
    Codec,
    codec_by_name,
    find_codec,
)
from fedattn.core.errors import InvalidRequestError
from fedattn.core.types import FloatArray, HeadCounts, head_slices
from tests.harness.strategies import head_rows

LARGEST = {
    "fp32": (2 - 2.0**-23) * 2.0**127, "fp16": 65504.0, "bf16": (2 - 2.0**-7) * 2.0**127,
    "int8": 127 * 65504.0, "int4": 60000.0,
    "entropy-finest": 1e15, "entropy-fine": 1e15, "entropy-medium": 1e15, "entropy-coarse": 1e15,
}  # fmt: skip
ULP = np.float32(2.0**-21)
"""Between 4 and the next float32; rows that differ by little more are a codec's hardest."""
each_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
small_arrays = hnp.arrays(
    np.float32,
    st.tuples(st.just(2), st.integers(1, 5), st.integers(1, 3)),
    elements=st.floats(-59000, 59000, width=32),
)


def require_promises_kept(codec: Codec, both: FloatArray, counts: HeadCounts) -> None:
    """Encode and decode K and V, [2, N, D]; check size, type, shape and error."""
    head_dim = both.shape[2]
    payload = codec.encode(both[0], both[1], counts)
    largest = codec.max_payload_size(head_dim, counts)
    assert len(payload) == largest if codec.is_fixed_size else len(payload) <= largest
    decoded = codec.decode(memoryview(payload), head_dim, counts)
    bounds = codec.error_bound(both[0], both[1], counts)
    for sent, got, bound in zip(both, decoded, bounds, strict=True):
        assert got.dtype == np.float32
        assert got.shape == sent.shape
        assert (np.abs(got - sent.astype(np.float64)) <= bound).all()


@each_codec
@given(rows=head_rows(largest=5e4))
def test_any_rows_come_back_within_the_declared_error_and_size(
    codec: Codec, rows: tuple[FloatArray, HeadCounts]
) -> None:
    require_promises_kept(codec, *rows)


@each_codec
@given(both=small_arrays)
@example(both=np.full((2, 3, 2), 60000.0, dtype=np.float32))
@example(both=(57344 + np.arange(48).reshape(2, 3, 8) / 256).astype(np.float32))
@example(
    both=4 + np.array([0, 1, 0, 3, 1, 2], dtype=np.float32).reshape(1, 6, 1).repeat(2, 0) * ULP
)
def test_few_odd_scalars_come_back_within_the_declared_error_and_size(
    codec: Codec, both: FloatArray
) -> None:
    require_promises_kept(codec, both, (both.shape[1],))


@each_codec
@given(data=st.data())
def test_scalars_up_to_the_largest_and_down_to_the_smallest_can_be_sent(
    codec: Codec, data: st.DataObject
) -> None:
    rows = data.draw(head_rows(largest=LARGEST[codec.name], smallest=1e-38))
    require_promises_kept(codec, *rows)


@each_codec
@pytest.mark.parametrize("counts", [(0, 0, 3), (2, 0, 0), (0, 1, 0), (40, 0, 33), (32, 1, 64)])
def test_each_head_is_written_as_if_it_were_alone(codec: Codec, counts: HeadCounts) -> None:
    """So a head without rows, or with other rows, changes nothing for the others."""
    rows = np.random.default_rng(0).normal(size=(2, sum(counts), 6)).astype(np.float32)
    scales = np.repeat([1.0, 30.0, 0.1], counts).astype(np.float32)
    keys, values = rows * scales[:, None]
    together = codec.decode(memoryview(codec.encode(keys, values, counts)), 6, counts)
    for head in head_slices(counts):
        own, count = (keys[head], values[head]), (head.stop - head.start,)
        if count != (0,):
            alone = codec.decode(memoryview(codec.encode(*own, count)), 6, count)
            for one, all_heads in zip(alone, together, strict=True):
                assert np.array_equal(one, all_heads[head])


@each_codec
@pytest.mark.parametrize("scalar", [np.nan, np.inf, -np.inf, 1.0, -1.0])
@pytest.mark.parametrize("place", [0, 11, 12, 23])
def test_scalar_that_is_nan_infinite_or_too_large_is_refused(
    codec: Codec, scalar: float, place: int
) -> None:
    with np.errstate(over="ignore"):  # above fp32's largest is infinity
        too_large = np.nextafter(np.float32(LARGEST[codec.name]), np.float32(np.inf))
    both = np.zeros((2, 4, 3), dtype=np.float32)
    both.flat[place] = scalar * too_large
    with pytest.raises(OverflowError, match=rf"outside {codec.name} \(largest"):
        codec.encode(both[0], both[1], (1, 3))


@each_codec
def test_rows_in_any_memory_order_give_the_same_bytes(codec: Codec) -> None:
    keys = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    strided, counts = np.asfortranarray(keys), (5, 3)
    written = codec.encode(keys, keys[::-1].copy(), counts)
    assert codec.encode(strided, strided[::-1], counts) == written


@each_codec
def test_rows_given_are_left_as_they_are(codec: Codec) -> None:
    keys = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    before = keys.copy()
    codec.encode(keys, keys, (5, 3))
    codec.error_bound(keys, keys, (5, 3))
    assert np.array_equal(keys, before)


@each_codec
def test_fewer_bytes_than_fp32_unless_it_is_fp32(codec: Codec) -> None:
    raw = codec_by_name("fp32").max_payload_size(64, (100, 100))
    assert (codec.max_payload_size(64, (100, 100)) < raw) is (codec.name != "fp32")


def test_each_rung_of_the_ladder_is_smaller_than_the_one_before() -> None:
    sizes = [codec_by_name(name).max_payload_size(64, (100, 100)) for name in CODEC_LADDER]
    assert sizes == sorted(set(sizes), reverse=True)


def test_numbers_on_the_wire_never_change() -> None:
    assert {codec.name: int(codec.codec_id) for codec in CODECS} == {
        "fp32": 1, "fp16": 2, "bf16": 3, "int8": 4, "int4": 5,
        "entropy-fine": 6, "entropy-medium": 7, "entropy-coarse": 8,
        "entropy-finest": 9,
    }  # fmt: skip


@each_codec
def test_codec_is_found_by_name_and_by_number(codec: Codec) -> None:
    assert codec_by_name(codec.name) is codec
    assert find_codec(int(codec.codec_id)) is codec


def test_auto_is_the_codec_it_stands_for() -> None:
    assert codec_by_name(DEFAULT_CODEC) is codec_by_name(AUTO_CODEC)
    assert ["auto", *(codec.name for codec in CODECS)] == list(CODEC_NAMES)


@pytest.mark.parametrize("number", [0, 10, 255, -1, 1 << 40])
def test_unknown_number_is_no_codec(number: int) -> None:
    assert find_codec(number) is None


def test_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(", ".join(CODEC_NAMES))) as caught:
        codec_by_name("mp3" * 1000)
    assert len(str(caught.value)) < 250


def test_every_codec_declares_its_range_here() -> None:
    assert set(LARGEST) == {codec.name for codec in CODECS}
