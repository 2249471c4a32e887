"""Attention over rows that stay with their owner: what travels instead.

At a block where the publisher asks, it sends its queries, already scaled. Each owner gives back
what they make of its rows: output o = softmax(q K^T) V and the logarithm of the softmax's
denominator, lse = log sum exp(q K^T), both for its own rows alone. From such parts p, the
publisher's own among them, follows attention over all rows:

    lse = log sum_p exp(lse_p)        output = sum_p exp(lse_p - lse) o_p

which is exact. A *piece* is one message with queries of a few tokens, or the part that answers
them. Little-endian, 32 bytes of header, then the body:

    offset  size  field
    0       4     magic "FAP1"
    4       1     what it holds, 0 = queries, 1 = a part
    5       1     codec number
    6       1     sealing of the body, 0 = none, 1 = AES-256-GCM
    7       1     reserved, 0
    8       2     layer, zero-based
    10      2     query heads
    12      2     head size
    14      2     reserved, 0
    16      4     number of the piece among the publisher's, from 0; a part has that of its queries
    20      4     tokens
    24      4     position of the first token, global; the others follow
    28      4     CRC-32 of bytes 0..27 and the body; 0 of a sealed piece

    body = [Hq, T, D] vectors as the codec writes them, of a part also [Hq, T] float32 lse
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from fedattn.core.checksums import checksum_of
from fedattn.core.codecs import VECTOR_CODECS, VectorCodec
from fedattn.core.errors import CorruptFrameError, InvalidRequestError, MalformedFrameError
from fedattn.core.seals import SEAL_SIZE, Seal
from fedattn.core.types import FloatArray

MAX_PIECE_SIZE = (1 << 20) - 1024
"""Bytes, seal included: a piece is one message."""
HEADER_SIZE = 32
PIECES_AHEAD = 8
"""Pieces of queries that a publisher sends before it has what all others make of the first."""
UNSEEN = np.float32(-1e30)
"""The lse of a query that sees no row at all; its output is 0."""
_MAGIC = b"FAP1"
_FIELDS = struct.Struct("<4sBBBBHHHHIII")
_CHECKSUM = struct.Struct("<I")
_CLEAR, _SEALED = 0, 1
_LSE_SIZE = 4
_BY_ID = {codec.codec_id: codec for codec in VECTOR_CODECS}
_BY_NAME = {codec.name: codec for codec in VECTOR_CODECS}
QUERY_CODEC_NAMES = tuple(_BY_NAME)
DEFAULT_QUERY_CODEC = "bf16"


def query_codec_by_name(name: str) -> VectorCodec:
    """The codec a user named for queries and their parts.

    Raises:
        InvalidRequestError: there is none of that name.
    """
    if name not in _BY_NAME:
        raise InvalidRequestError(
            f"unknown codec for queries {name[:40]!r}; choose one of {', '.join(_BY_NAME)}"
        )
    return _BY_NAME[name]


class PieceKind(IntEnum):
    """What a piece holds."""

    QUERIES = 0
    PART = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartialAttention:
    """What queries make of some of the rows that they see.

    Attributes:
        output: [Hq, T, D] float32, the mean of those values by attention among them.
        lse: [Hq, T] float32, UNSEEN where a query sees none of them.
    """

    output: FloatArray
    lse: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceHeader:
    """What a piece says about itself.

    Attributes:
        kind: queries or a part.
        codec: of its vectors.
        layer: zero-based.
        num_heads: Hq.
        head_dim: D.
        number: of the publisher's pieces, from 0.
        num_tokens: T.
        first_position: global, of the first token.
        is_sealed: whether the body is encrypted.
    """

    kind: PieceKind
    codec: VectorCodec
    layer: int
    num_heads: int
    head_dim: int
    number: int
    num_tokens: int
    first_position: int
    is_sealed: bool = False

    @property
    def body_size(self) -> int:
        """Bytes, without a seal."""
        num_vectors = self.num_heads * self.num_tokens
        lse_size = num_vectors * _LSE_SIZE if self.kind is PieceKind.PART else 0
        return self.codec.vectors_size(num_vectors, self.head_dim) + lse_size

    def fields(self) -> bytes:
        """The header before its checksum."""
        return _FIELDS.pack(
            _MAGIC, self.kind, self.codec.codec_id, _SEALED if self.is_sealed else _CLEAR, 0,
            self.layer, self.num_heads, self.head_dim, 0,
            self.number, self.num_tokens, self.first_position,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """A piece that was read: its header, and its vectors in the clear.

    Attributes:
        header: of it.
        vectors: [Hq, T, D] float32.
        lse: [Hq, T] float32 of a part.
    """

    header: PieceHeader
    vectors: FloatArray
    lse: FloatArray | None = None

    @property
    def part(self) -> PartialAttention:
        """Of a piece that holds one."""
        assert self.lse is not None
        return PartialAttention(output=self.vectors, lse=self.lse)


def tokens_a_piece(num_heads: int, head_dim: int, codec: VectorCodec) -> int:
    """Tokens whose queries, and whose parts, fit one piece; at least 1."""
    a_token = codec.vectors_size(num_heads, head_dim) + num_heads * _LSE_SIZE
    return max(1, (MAX_PIECE_SIZE - HEADER_SIZE - SEAL_SIZE) // a_token)


def piece_size(header: PieceHeader) -> int:
    """Bytes of a whole piece, seal included."""
    return HEADER_SIZE + header.body_size + (SEAL_SIZE if header.is_sealed else 0)


def write_piece(header: PieceHeader, vectors: FloatArray, lse: FloatArray | None = None,
                seal: Seal | None = None) -> bytes:  # fmt: skip
    """A piece as it travels.

    Args:
        header: of it; whether it is sealed follows from `seal`.
        vectors: [Hq, T, D] float32.
        lse: [Hq, T] float32 of a part.
        seal: encrypts the body; None to leave it in the clear.

    Raises:
        InvalidRequestError: a value does not fit the codec.
    """
    rows = np.ascontiguousarray(vectors).reshape(-1, header.head_dim)
    try:
        body = header.codec.encode_vectors(rows)
    except OverflowError as error:
        raise InvalidRequestError(f"queries of layer {header.layer}: {error}") from error
    if lse is not None:
        body += np.ascontiguousarray(lse, dtype="<f4").tobytes()
    fields = header.fields()
    if seal is None:
        return fields + _CHECKSUM.pack(checksum_of(fields, body)) + body
    return fields + _CHECKSUM.pack(0) + seal(_nonce(header), fields, body)


def read_header(data: bytes, sender: str) -> PieceHeader:
    """The header of a piece, held against its size.

    Raises:
        MalformedFrameError: it is none, or of another size than it says.
    """
    where = f"piece from {sender}"
    if len(data) < HEADER_SIZE:
        raise MalformedFrameError(f"{where} has {len(data)} bytes, expected at least {HEADER_SIZE}")
    (
        magic, kind, codec_id, sealing, _, layer, num_heads, head_dim, _,
        number, num_tokens, first_position,
    ) = _FIELDS.unpack_from(data)  # fmt: skip
    codec = _BY_ID.get(codec_id)
    if magic != _MAGIC or kind not in {0, 1} or sealing not in {_CLEAR, _SEALED} or codec is None:
        raise MalformedFrameError(f"{where} is none: its first bytes are {data[:8].hex()}")
    header = PieceHeader(
        kind=PieceKind(kind), codec=codec, layer=layer, num_heads=num_heads, head_dim=head_dim,
        number=number, num_tokens=num_tokens, first_position=first_position,
        is_sealed=sealing == _SEALED,
    )  # fmt: skip
    expected = piece_size(header)
    if not num_tokens or len(data) != expected or len(data) > MAX_PIECE_SIZE:
        raise MalformedFrameError(
            f"{where} has {len(data)} bytes for {num_tokens} tokens, expected {expected}, at most "
            f"{MAX_PIECE_SIZE}"
        )
    return header


def read_piece(data: bytes, header: PieceHeader, open_seal: Seal | None = None) -> Piece:
    """The vectors of a piece whose header was read and found right.

    Raises:
        CorruptFrameError: they were changed on their way, are not finite, or cannot be opened.
    """
    body: memoryview = memoryview(data)[HEADER_SIZE:]
    fields = data[: HEADER_SIZE - _CHECKSUM.size]
    if open_seal is not None:
        body = memoryview(open_seal(_nonce(header), fields, body))
    elif _CHECKSUM.unpack_from(data, HEADER_SIZE - _CHECKSUM.size)[0] != checksum_of(fields, body):
        raise CorruptFrameError("a piece was changed on its way: its checksum differs")
    heads, tokens, size = header.num_heads, header.num_tokens, header.head_dim
    vectors_size = header.codec.vectors_size(heads * tokens, size)
    rows = header.codec.decode_vectors(body[:vectors_size], heads * tokens, size)
    lse = None
    if header.kind is PieceKind.PART:
        lse = np.frombuffer(body, dtype="<f4", offset=vectors_size).reshape(heads, tokens)
        if not np.isfinite(lse).all():
            raise CorruptFrameError("a part holds NaN or infinity; its owner must check its model")
    return Piece(header=header, vectors=rows.reshape(heads, tokens, size), lse=lse)


def _nonce(header: PieceHeader) -> int:
    """Of a sender's key, which seals each number once; apart from those of frames."""
    return (1 << 64) + header.number
