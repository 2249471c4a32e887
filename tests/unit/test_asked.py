"""Pieces of queries and of what rows make of them: what is written is read, all else is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.asked import (
    HEADER_SIZE,
    MAX_PIECE_SIZE,
    PieceHeader,
    PieceKind,
    piece_size,
    query_codec_by_name,
    read_header,
    read_piece,
    tokens_a_piece,
    write_piece,
)
from fedattn.core.codecs import VECTOR_CODECS, VectorCodec
from fedattn.core.errors import CorruptFrameError, InvalidRequestError, MalformedFrameError
from fedattn.core.seals import SEAL_SIZE
from fedattn.wire.sealing import ContentKey


def header_of(
    codec: VectorCodec, kind: PieceKind = PieceKind.QUERIES, **changes: Any
) -> PieceHeader:
    usual = PieceHeader(
        kind=kind, codec=codec, layer=3, num_heads=4, head_dim=8, number=7, num_tokens=5,
        first_position=40,
    )  # fmt: skip
    return replace(usual, **changes)


def vectors_of(header: PieceHeader, seed: int = 0) -> np.ndarray:
    shape = header.num_heads, header.num_tokens, header.head_dim
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(
    codec=st.sampled_from(VECTOR_CODECS),
    kind=st.sampled_from(PieceKind),
    sizes=st.tuples(*[st.integers(1, 6)] * 3),
    seed=st.integers(0, 99),
)
def test_what_is_written_is_read(
    codec: VectorCodec, kind: PieceKind, sizes: tuple[int, int, int], seed: int
) -> None:
    heads, tokens, dim = sizes
    header = header_of(codec, kind, num_heads=heads, num_tokens=tokens, head_dim=dim)
    vectors = vectors_of(header, seed)
    lse = vectors[..., 0] if kind is PieceKind.PART else None
    data = write_piece(header, vectors, lse)
    assert len(data) == piece_size(header)
    read = read_piece(data, read_header(data, "a"))
    assert read.header == header
    largest = np.abs(vectors).max(axis=-1, keepdims=True)
    assert (np.abs(read.vectors - vectors) <= largest / 127).all()
    if codec.name == "fp32":
        np.testing.assert_array_equal(read.vectors, vectors)
    if lse is not None:
        np.testing.assert_array_equal(read.part.lse, lse)


@pytest.mark.parametrize("codec", VECTOR_CODECS, ids=lambda codec: codec.name)
def test_a_sealed_piece_opens_with_its_key_and_under_its_own_header_only(
    codec: VectorCodec,
) -> None:
    header = header_of(codec, is_sealed=True)
    key, vectors = ContentKey(), vectors_of(header)
    data = write_piece(header, vectors, seal=key.seal)
    assert len(data) == HEADER_SIZE + header.body_size + SEAL_SIZE
    read = read_header(data, "a")
    opened = read_piece(data, read, ContentKey(key.secret).open)
    assert opened.vectors.shape == vectors.shape
    with pytest.raises(CorruptFrameError, match="not what its sender sealed"):
        read_piece(data, read, ContentKey().open)
    moved = bytearray(data)
    moved[8] ^= 1  # the layer
    with pytest.raises(CorruptFrameError, match="not what its sender sealed"):
        read_piece(bytes(moved), read_header(bytes(moved), "a"), ContentKey(key.secret).open)


def test_a_key_seals_each_number_once() -> None:
    header = header_of(VECTOR_CODECS[0], is_sealed=True)
    key = ContentKey()
    write_piece(header, vectors_of(header), seal=key.seal)
    with pytest.raises(ValueError, match="has been sealed"):
        write_piece(header, vectors_of(header), seal=key.seal)


def test_numbers_of_pieces_and_layers_of_frames_never_share_a_nonce() -> None:
    header = header_of(VECTOR_CODECS[0], is_sealed=True, number=3)
    key = ContentKey()
    key.seal(3, b"", b"rows of block 3")
    write_piece(header, vectors_of(header), seal=key.seal)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (0, 0, "is none"),
        (4, 2, "is none"),
        (5, 99, "is none"),
        (6, 7, "is none"),
        (20, 6, "expected"),
        (20, 0, "for 0 tokens"),
        (10, 200, "expected"),
    ],
)
def test_headers_that_contradict_themselves_are_refused(place: int, value: int, words: str) -> None:
    header = header_of(VECTOR_CODECS[0])
    data = bytearray(write_piece(header, vectors_of(header)))
    data[place] = value
    with pytest.raises(MalformedFrameError, match=words):
        read_header(bytes(data), "a")


def test_short_and_oversized_pieces_are_refused_by_size_alone() -> None:
    with pytest.raises(MalformedFrameError, match="at least 32"):
        read_header(b"FAP1", "a")
    header = header_of(VECTOR_CODECS[0], num_tokens=1 << 20)
    with pytest.raises(MalformedFrameError, match=f"at most {MAX_PIECE_SIZE}"):
        read_header(header.fields() + bytes(100), "a")


def test_a_changed_byte_shows() -> None:
    header = header_of(VECTOR_CODECS[0])
    data = bytearray(write_piece(header, vectors_of(header)))
    data[-1] ^= 1
    with pytest.raises(CorruptFrameError, match="checksum differs"):
        read_piece(bytes(data), read_header(bytes(data), "a"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_neither_written_nor_read(value: float) -> None:
    header = header_of(query_codec_by_name("fp16"))
    vectors = vectors_of(header)
    vectors[0, 0, 0] = value
    with pytest.raises(InvalidRequestError, match="layer 3"):
        write_piece(header, vectors)
    part = header_of(VECTOR_CODECS[0], PieceKind.PART)
    data = write_piece(part, vectors_of(part), np.full((4, 5), value, dtype=np.float32))
    with pytest.raises(CorruptFrameError, match="NaN or infinity"):
        read_piece(data, read_header(data, "a"))


@pytest.mark.parametrize("codec", VECTOR_CODECS, ids=lambda codec: codec.name)
def test_as_many_tokens_go_into_a_piece_as_fit(codec: VectorCodec) -> None:
    most = tokens_a_piece(9, 64, codec)
    part = header_of(codec, PieceKind.PART, num_heads=9, head_dim=64, num_tokens=most)
    assert piece_size(replace(part, is_sealed=True)) <= MAX_PIECE_SIZE
    assert piece_size(replace(part, is_sealed=True, num_tokens=most + 1)) > MAX_PIECE_SIZE


def test_an_unknown_codec_names_those_there_are() -> None:
    with pytest.raises(InvalidRequestError, match="fp32, fp16, bf16, int8"):
        query_codec_by_name("zip")
