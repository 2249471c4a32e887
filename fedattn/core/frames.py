"""The KV frame: the rows of one participant at one layer, self-describing and checksummed.

Little-endian, 32 bytes of header, then the payload of the codec:

    offset  size  field
    0       4     magic "FKV1"
    4       1     frame version, 1
    5       1     codec number
    6       1     position encoding, 0 = contiguous from `first position`
    7       1     reserved, 0
    8       2     layer, zero-based
    10      2     key/value heads
    12      2     head size
    14      2     reserved, 0
    16      4     rows
    20      4     first position, global
    24      4     payload size in bytes
    28      4     CRC-32 of bytes 0..27 and the payload
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from fedattn.core.codecs import Codec, find_codec
from fedattn.core.errors import CorruptFrameError, InvalidRequestError, MalformedFrameError
from fedattn.core.spans import Span
from fedattn.core.types import KvRows, KvShape

MAGIC = b"FKV1"
FRAME_VERSION = 1
HEADER_SIZE = 32
MAX_FRAME_SIZE = 1 << 30
_FIELDS = struct.Struct("<4sBBBBHHHHIII")
_CHECKSUM = struct.Struct("<I")
_CONTIGUOUS = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameHeader:
    """What a frame says about itself, checked for internal consistency."""

    codec: Codec
    layer: int
    num_kv_heads: int
    head_dim: int
    num_rows: int
    first_position: int
    payload_size: int
    checksum: int

    @property
    def frame_size(self) -> int:
        return HEADER_SIZE + self.payload_size


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRules:
    """What a receiver accepts from one sender; everything else is refused before allocation."""

    sender: str
    shape: KvShape
    codec: Codec
    span: Span


def frame_size(codec: Codec, shape: KvShape, num_rows: int) -> int:
    """Bytes of a whole frame, header included."""
    return HEADER_SIZE + codec.payload_size(shape, num_rows)


def encode_frame(rows: KvRows, layer: int, codec: Codec) -> bytes:
    """Encode the rows of one layer.

    Args:
        rows: contiguous positions, T >= 1.
        layer: zero-based.
        codec: how K and V are written.

    Raises:
        InvalidRequestError: a value does not fit the codec.
    """
    num_heads, num_rows, head_dim = rows.keys.shape
    first = int(rows.positions[0])
    if int(rows.positions[-1]) - first + 1 != num_rows:
        raise ValueError("frame version 1 carries contiguous positions only")
    try:
        payload = codec.encode(rows.keys, rows.values)
    except OverflowError as error:
        raise InvalidRequestError(f"layer {layer}: {error}") from error
    fields = _FIELDS.pack(
        MAGIC, FRAME_VERSION, codec.codec_id, _CONTIGUOUS, 0,
        layer, num_heads, head_dim, 0, num_rows, first, len(payload),
    )  # fmt: skip
    checksum = zlib.crc32(payload, zlib.crc32(fields))
    return fields + _CHECKSUM.pack(checksum) + payload


def parse_header(data: bytes | memoryview, sender: str) -> FrameHeader:
    """Read the first HEADER_SIZE bytes of a frame.

    Raises:
        MalformedFrameError: they are no header of a version and codec known here.
    """
    if len(data) < HEADER_SIZE:
        raise MalformedFrameError(
            f"frame from {sender}: expected at least {HEADER_SIZE} bytes, got {len(data)}"
        )
    (magic, version, codec_id, encoding, zero, layer, heads, head_dim, zero2, rows, first, size) = (
        _FIELDS.unpack_from(data)
    )
    codec = find_codec(codec_id)
    if magic != MAGIC or version != FRAME_VERSION or encoding != _CONTIGUOUS or zero or zero2:
        raise MalformedFrameError(
            f"frame from {sender}: expected magic {MAGIC!r}, version {FRAME_VERSION} and zero "
            f"reserved bytes, got {magic!r}, version {version}; upgrade the older node"
        )
    if codec is None:
        raise MalformedFrameError(f"frame from {sender}: codec {codec_id} is not known here")
    return FrameHeader(
        codec=codec, layer=layer, num_kv_heads=heads, head_dim=head_dim, num_rows=rows,
        first_position=first, payload_size=size,
        checksum=_CHECKSUM.unpack_from(data, _FIELDS.size)[0],
    )  # fmt: skip


def check_header(header: FrameHeader, rules: FrameRules) -> None:
    """Refuse a frame that does not fit its session.

    Raises:
        MalformedFrameError: names the sender, what was expected and what came.
    """
    shape, span = rules.shape, rules.span
    expected: dict[str, tuple[object, object]] = {
        "codec": (rules.codec.name, header.codec.name),
        "key/value heads": (shape.num_kv_heads, header.num_kv_heads),
        "head size": (shape.head_dim, header.head_dim),
        "rows": (len(span), header.num_rows),
        "first position": (span.start, header.first_position),
        "payload size": (rules.codec.payload_size(shape, len(span)), header.payload_size),
        "layer in range": (True, header.layer < shape.num_layers),
        "frame within the size limit": (True, header.frame_size <= MAX_FRAME_SIZE),
    }
    for what, (want, got) in expected.items():
        if want != got:
            raise MalformedFrameError(
                f"frame from {rules.sender} at layer {header.layer}: {what} expected {want}, "
                f"got {got}"
            )


class FrameChecksum:
    """CRC-32 of a frame whose bytes arrive in pieces."""

    def __init__(self, header_bytes: bytes | memoryview) -> None:
        self._crc = zlib.crc32(header_bytes[: _FIELDS.size])

    def update(self, payload_part: bytes | memoryview) -> None:
        self._crc = zlib.crc32(payload_part, self._crc)

    def verify(self, header: FrameHeader, sender: str) -> None:
        """Raise CorruptFrameError unless the bytes seen match the header's checksum."""
        if self._crc != header.checksum:
            raise CorruptFrameError(
                f"frame from {sender} at layer {header.layer}: checksum expected "
                f"{header.checksum:08x}, got {self._crc:08x}; the bytes changed on the way"
            )


def decode_frame(frame: bytes | bytearray | memoryview, rules: FrameRules) -> KvRows:
    """Check and decode a whole frame.

    Raises:
        MalformedFrameError: it does not fit `rules`.
        CorruptFrameError: checksum or values are wrong.
    """
    view = memoryview(frame)
    header = parse_header(view, rules.sender)
    check_header(header, rules)
    if len(view) != header.frame_size:
        raise MalformedFrameError(
            f"frame from {rules.sender} at layer {header.layer}: expected {header.frame_size} "
            f"bytes, got {len(view)}"
        )
    payload = view[HEADER_SIZE:]
    checksum = FrameChecksum(view)
    checksum.update(payload)
    checksum.verify(header, rules.sender)
    try:
        keys, values = header.codec.decode(payload, rules.shape, header.num_rows)
    except CorruptFrameError as error:
        where = f"frame from {rules.sender} at layer {header.layer}"
        raise CorruptFrameError(f"{where}: {error}") from None
    first = header.first_position
    positions = np.arange(first, first + header.num_rows, dtype=np.int64)
    return KvRows(keys=keys, values=values, positions=positions)
