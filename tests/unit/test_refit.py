"""Rows that travel make up for those that do not."""

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest

from fedattn.core.codecs import codec_by_name
from fedattn.core.errors import CorruptFrameError, MalformedFrameError
from fedattn.core.frame_headers import HEADER_SIZE, FrameSpec
from fedattn.core.frames import decode_frame, encode_frame
from fedattn.core.refit import MAX_QUERIES, behind_span, refit_head, refit_rows
from fedattn.core.rotary import Rotary
from fedattn.core.spans import Span
from fedattn.core.types import FloatArray, HeadRows, KvRows, KvShape

HEADS, GROUP, TOKENS, SIZE = 2, 3, 40, 8
KEPT = (np.arange(0, TOKENS, 4), np.array([1, 2, 30]))
FREE = np.arange(TOKENS)
ROTARY = Rotary(inverse_frequencies=np.array([1.0, 0.3, 0.1, 0.01]))


def normal(seed: int, *shape: int) -> FloatArray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def span_rows() -> KvRows:
    return KvRows(
        keys=normal(1, HEADS, TOKENS, SIZE),
        values=normal(2, HEADS, TOKENS, SIZE),
        positions=np.arange(TOKENS) + 5,
    )


def kept_of(rows: KvRows) -> HeadRows:
    return HeadRows(
        keys=np.concatenate([rows.keys[head, kept] for head, kept in enumerate(KEPT)]),
        values=np.concatenate([rows.values[head, kept] for head, kept in enumerate(KEPT)]),
        positions=rows.positions[np.concatenate(KEPT)],
        counts=tuple(map(len, KEPT)),
    )


def exp_scores(queries: FloatArray, keys: FloatArray) -> FloatArray:
    scores: FloatArray = np.exp(queries @ keys.T)
    return scores


def test_kept_rows_draw_what_all_rows_drew_and_give_what_they_gave() -> None:
    rows, queries = span_rows(), normal(3, 60, SIZE) * np.float32(0.5)
    keys, values, kept = rows.keys[0], rows.values[0], KEPT[0]
    biases, moved = refit_head(queries, keys, values, kept)
    of_all, of_kept = exp_scores(queries, keys), exp_scores(queries, keys[kept])
    mass, output = of_all.sum(axis=1), of_all @ values
    before, after = of_kept.sum(axis=1), (of_kept * np.exp(biases)).sum(axis=1)
    assert np.abs(after / mass - 1).mean() < 0.3 < np.abs(before / mass - 1).mean()
    plain = of_kept @ values[kept] / before[:, None]
    refitted = (of_kept * np.exp(biases)) @ moved / after[:, None]
    wanted = output / mass[:, None]
    assert np.linalg.norm(refitted - wanted) < 0.8 * np.linalg.norm(plain - wanted)


def test_heads_that_keep_all_or_nothing_stay_as_they_are() -> None:
    rows = span_rows()
    kept = HeadRows(
        keys=rows.keys[0],
        values=rows.values[0],
        positions=rows.positions,
        counts=(TOKENS, 0),
    )
    refitted = refit_rows(kept, rows, FREE, normal(3, HEADS * GROUP, 20, SIZE))
    np.testing.assert_array_equal(refitted.values, kept.values)
    assert refitted.biases is not None
    assert not refitted.biases.any()


def test_nothing_of_a_withheld_row_shows() -> None:
    rows = span_rows()
    withheld = 7
    other = replace(rows, keys=rows.keys.copy(), values=rows.values.copy())
    other.keys[:, withheld] += 1
    other.values[:, withheld] += 100
    free = np.delete(FREE, withheld)
    queries = normal(3, HEADS * GROUP, 20, SIZE)
    one, two = (refit_rows(kept_of(each), each, free, queries) for each in (rows, other))
    np.testing.assert_array_equal(one.values, two.values)
    assert one.biases is not None
    assert two.biases is not None
    np.testing.assert_array_equal(one.biases, two.biases)


def test_no_value_gets_longer_than_the_longest() -> None:
    rows = span_rows()
    refitted = refit_rows(kept_of(rows), rows, FREE, 5 * normal(3, HEADS * GROUP, 20, SIZE))
    for head, here in enumerate(refitted.heads):
        longest = np.linalg.norm(rows.values[head], axis=1).max()
        assert np.linalg.norm(refitted.values[here], axis=1).max() <= longest * 1.0001


def test_queries_stand_behind_the_span() -> None:
    queries, positions = normal(4, HEADS, TOKENS, SIZE), np.arange(TOKENS) + 5
    turned = behind_span(ROTARY.apply(queries, positions), ROTARY)
    np.testing.assert_allclose(turned, ROTARY.apply(queries, positions + TOKENS), atol=1e-5)
    assert behind_span(normal(4, HEADS, 1000, SIZE), ROTARY).shape[1] == MAX_QUERIES


def spec(rows: HeadRows, *, is_refitted: bool = True) -> FrameSpec:
    shape = KvShape(num_layers=4, num_kv_heads=HEADS, head_dim=SIZE)
    return FrameSpec(
        sender="a",
        shape=shape,
        codec=codec_by_name("fp32"),
        span=Span(5, 5 + TOKENS),
        counts=rows.counts,
        is_refitted=is_refitted,
    )


def frame_of(biases: FloatArray) -> tuple[HeadRows, bytes]:
    rows = replace(kept_of(span_rows()), biases=biases)
    return rows, encode_frame(rows, 1, codec_by_name("fp32"), Span(5, 5 + TOKENS), ROTARY)


def test_biases_travel_in_sixteenths() -> None:
    biases = np.linspace(-9, 9, num=13, dtype=np.float32)
    rows, frame = frame_of(biases)
    came = decode_frame(frame, spec(rows))
    assert came.biases is not None
    np.testing.assert_allclose(came.biases, np.clip(biases, -127 / 16, 127 / 16), atol=1 / 32)
    np.testing.assert_array_equal(came.values, rows.values)


def test_biases_come_only_where_they_are_awaited() -> None:
    rows, frame = frame_of(np.zeros(13, dtype=np.float32))
    with pytest.raises(MalformedFrameError, match="biases"):
        decode_frame(frame, spec(rows, is_refitted=False))
    plain = replace(rows, biases=None)
    frame = encode_frame(plain, 1, codec_by_name("fp32"), Span(5, 5 + TOKENS), ROTARY)
    with pytest.raises(MalformedFrameError, match="biases"):
        decode_frame(frame, spec(rows))


def test_a_bias_beyond_the_range_is_refused() -> None:
    rows, frame = frame_of(np.zeros(13, dtype=np.float32))
    at = HEADER_SIZE + spec(rows).bitmaps_size
    changed = encode_changed(frame, at)
    with pytest.raises(CorruptFrameError, match="bias"):
        decode_frame(changed, spec(rows))


def encode_changed(frame: bytes, at: int) -> bytes:
    """The frame with the byte -128 at a place, and its checksum made anew."""

    body = bytearray(frame)
    body[at] = 0x80
    checksum = zlib.crc32(body[36:], zlib.crc32(body[:32]))
    body[32:36] = struct.pack("<I", checksum)
    return bytes(body)
