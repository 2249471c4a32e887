"""The KV frame: the rows of one participant at one layer, self-describing and checksummed.

Little-endian, 36 bytes of header, then the body:

    offset  size  field
    0       4     magic "FKV1"
    4       1     frame version, 3
    5       1     codec number
    6       1     position encoding, 0 = all rows of the span, 1 = bitmap
    7       1     sealing of the body, 0 = none, 1 = AES-256-GCM
    8       2     layer, zero-based
    10      2     key/value heads
    12      2     head size
    14      2     reserved, 0
    16      4     rows
    20      4     first position of the span, global
    24      4     positions in the span
    28      4     body size in bytes
    32      4     CRC-32 of bytes 0..31 and the body

    body = the bitmap, if there is one, then the payload of the codec

The bitmap has one bit for each position of the span, lowest bit first, set where a row travels.
A sealed body is encrypted, SEAL_SIZE bytes longer, and bound to bytes 0..31 of its header, which
stay readable for whoever passes the frame on. The checksum covers the bytes as they travel.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedattn.core.codecs import Codec, find_codec
from fedattn.core.errors import CorruptFrameError, InvalidRequestError, MalformedFrameError
from fedattn.core.rotary import Rotary
from fedattn.core.spans import Span
from fedattn.core.types import IntArray, KvRows, KvShape

MAGIC = b"FKV1"
FRAME_VERSION = 3
HEADER_SIZE = 36
SEAL_SIZE = 16
"""Bytes that sealing adds to a body: the tag that shows any change."""
MAX_FRAME_SIZE = 1 << 30
_FIELDS = struct.Struct("<4sBBBBHHHHIIII")
_SEALING_PLACE, _LAYER_PLACE, _BODY_SIZE_PLACE = 4, 5, 12
_CHECKSUM = struct.Struct("<I")
_ALL_ROWS, _BITMAP = 0, 1
_CLEAR, _SEALED = 0, 1

Seal = Callable[[int, bytes, bytes | bytearray | memoryview], bytes]
"""(layer, authenticated header, body) -> the body sealed, or opened again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameHeader:
    """What a frame says about itself, checked for internal consistency."""

    codec: Codec
    layer: int
    num_kv_heads: int
    head_dim: int
    num_rows: int
    has_bitmap: bool
    is_sealed: bool = False
    first_position: int
    span_len: int
    body_size: int
    checksum: int = 0

    @property
    def frame_size(self) -> int:
        return HEADER_SIZE + self.body_size

    def fields(self) -> bytes:
        """The bytes of the header before its checksum."""
        return _FIELDS.pack(
            MAGIC, FRAME_VERSION, self.codec.codec_id, _BITMAP if self.has_bitmap else _ALL_ROWS,
            _SEALED if self.is_sealed else _CLEAR, self.layer, self.num_kv_heads, self.head_dim, 0,
            self.num_rows, self.first_position, self.span_len, self.body_size,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSpec:
    """What a receiver accepts from one sender; everything else is refused before allocation."""

    sender: str
    shape: KvShape
    codec: Codec
    span: Span
    num_rows: int
    is_sealed: bool = False

    @property
    def bitmap_size(self) -> int:
        return bitmap_size(len(self.span), self.num_rows)

    @property
    def seal_size(self) -> int:
        return SEAL_SIZE if self.is_sealed else 0


def bitmap_size(span_len: int, num_rows: int) -> int:
    """Bytes that tell which rows travel; none if all do."""
    return 0 if num_rows == span_len else (span_len + 7) // 8


def max_frame_size(spec: FrameSpec) -> int:
    """Bytes a frame never exceeds, header included; exact for a codec of fixed size."""
    payload_size = spec.codec.max_payload_size(spec.shape, spec.num_rows)
    return HEADER_SIZE + spec.bitmap_size + payload_size + spec.seal_size


def encode_frame(
    rows: KvRows, layer: int, codec: Codec, span: Span, rotary: Rotary | None = None
) -> bytes:
    """Encode rows of one layer.

    Args:
        rows: at least one, at positions of the span.
        layer: zero-based.
        codec: how K and V are written.
        span: whose rows these are.
        rotary: of the model; needed by codecs that send keys before RoPE.

    Raises:
        InvalidRequestError: a value does not fit the codec.
    """
    num_heads, num_rows, head_dim = rows.keys.shape
    keys = rows.keys
    if codec.keys_before_rope:
        keys = _require_rotary(codec, rotary).undo(keys, rows.positions)
    try:
        payload = codec.encode(keys, rows.values)
    except OverflowError as error:
        raise InvalidRequestError(f"layer {layer}: {error}") from error
    bitmap = _write_bitmap(rows.positions, span)
    header = FrameHeader(
        codec=codec, layer=layer, num_kv_heads=num_heads, head_dim=head_dim, num_rows=num_rows,
        has_bitmap=bool(bitmap), first_position=span.start, span_len=len(span),
        body_size=len(bitmap) + len(payload),
    )  # fmt: skip
    return _join(header.fields(), bitmap, payload)


def _join(fields: bytes, *body: bytes) -> bytes:
    checksum = zlib.crc32(fields)
    for part in body:
        checksum = zlib.crc32(part, checksum)
    return b"".join((fields, _CHECKSUM.pack(checksum), *body))


def seal_frame(frame: bytes, seal: Seal) -> bytes:
    """The frame with its body sealed.

    Args:
        frame: as `encode_frame` gives it; its header is not checked again.
        seal: encrypts; binds the body to the header.
    """
    values = list(_FIELDS.unpack_from(frame))
    values[_SEALING_PLACE] = _SEALED
    values[_BODY_SIZE_PLACE] += SEAL_SIZE
    fields = _FIELDS.pack(*values)
    return _join(fields, seal(values[_LAYER_PLACE], fields, memoryview(frame)[HEADER_SIZE:]))


def open_frame(frame: "ReceivedFrame", unseal: Seal) -> "ReceivedFrame":
    """A checked, sealed frame with its body in the clear; its header stays as it travelled.

    Raises:
        CorruptFrameError: from `unseal`; it is not what its sender sealed.
    """
    header = frame.header
    body = unseal(header.layer, header.fields(), frame.body)
    return ReceivedFrame(header, body)


def parse_header(data: bytes | memoryview, sender: str) -> FrameHeader:
    """Read the first HEADER_SIZE bytes of a frame.

    Raises:
        MalformedFrameError: they are no header of a version and codec known here.
    """
    if len(data) < HEADER_SIZE:
        raise MalformedFrameError(
            f"frame from {sender}: expected at least {HEADER_SIZE} bytes, got {len(data)}"
        )
    (
        magic, version, codec_id, encoding, sealing, layer, heads, head_dim, zero,
        rows, first, span_len, size,
    ) = _FIELDS.unpack_from(data)  # fmt: skip
    codec = find_codec(codec_id)
    known = encoding in {_ALL_ROWS, _BITMAP} and sealing in {_CLEAR, _SEALED}
    if magic != MAGIC or version != FRAME_VERSION or not known or zero:
        raise MalformedFrameError(
            f"frame from {sender}: expected magic {MAGIC!r}, version {FRAME_VERSION}, a known "
            f"position encoding and sealing, and zero reserved bytes, got {magic!r}, version "
            f"{version}, encoding {encoding}, sealing {sealing}; upgrade the older node"
        )
    if codec is None:
        raise MalformedFrameError(f"frame from {sender}: codec {codec_id} is not known here")
    return FrameHeader(
        codec=codec, layer=layer, num_kv_heads=heads, head_dim=head_dim, num_rows=rows,
        has_bitmap=encoding == _BITMAP, is_sealed=sealing == _SEALED, first_position=first,
        span_len=span_len, body_size=size, checksum=_CHECKSUM.unpack_from(data, _FIELDS.size)[0],
    )  # fmt: skip


def check_header(header: FrameHeader, spec: FrameSpec) -> None:
    """Refuse a frame that does not fit its session.

    Raises:
        MalformedFrameError: names the sender, what was expected and what came.
    """
    shape, span, codec = spec.shape, spec.span, spec.codec
    largest = max_frame_size(spec) - HEADER_SIZE
    least = spec.bitmap_size + 1 + spec.seal_size
    smallest = largest if codec.is_fixed_size else min(least, largest)
    expected: dict[str, tuple[object, object]] = {
        "codec": (codec.name, header.codec.name),
        "key/value heads": (shape.num_kv_heads, header.num_kv_heads),
        "head size": (shape.head_dim, header.head_dim),
        "rows": (spec.num_rows, header.num_rows),
        "bitmap": (spec.bitmap_size > 0, header.has_bitmap),
        "sealed": (spec.is_sealed, header.is_sealed),
        "first position": (span.start, header.first_position),
        "span length": (len(span), header.span_len),
        "layer in range": (True, header.layer < shape.num_layers),
        "frame within the size limit": (True, header.frame_size <= MAX_FRAME_SIZE),
    }
    for what, (want, got) in expected.items():
        if want != got:
            raise MalformedFrameError(
                f"frame from {spec.sender} at layer {header.layer}: {what} expected {want}, "
                f"got {got}"
            )
    if not smallest <= header.body_size <= largest:
        raise MalformedFrameError(
            f"frame from {spec.sender} at layer {header.layer}: body size expected {smallest} to "
            f"{largest}, got {header.body_size}"
        )


@dataclass(frozen=True, slots=True)
class ReceivedFrame:
    """A whole frame whose header fits its session and whose checksum is right.

    Attributes:
        header: what it says about itself, as it travelled.
        body: bitmap and payload.
    """

    header: FrameHeader
    body: bytes | bytearray | memoryview


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


def check_frame(data: bytes | bytearray | memoryview, spec: FrameSpec) -> ReceivedFrame:
    """Check a whole frame at once.

    Raises:
        MalformedFrameError: it does not fit `spec`.
        CorruptFrameError: its checksum is wrong.
    """
    view = memoryview(data)
    header = parse_header(view, spec.sender)
    check_header(header, spec)
    if len(view) != header.frame_size:
        raise MalformedFrameError(
            f"frame from {spec.sender} at layer {header.layer}: expected {header.frame_size} "
            f"bytes, got {len(view)}"
        )
    body = view[HEADER_SIZE:]
    checksum = FrameChecksum(view)
    checksum.update(body)
    checksum.verify(header, spec.sender)
    return ReceivedFrame(header, body)


def decode_body(frame: ReceivedFrame, spec: FrameSpec, rotary: Rotary | None = None) -> KvRows:
    """Rows of a checked frame; keys come after RoPE.

    Raises:
        CorruptFrameError: positions or values are wrong.
    """
    body = memoryview(frame.body)
    try:
        positions = _read_positions(body[: spec.bitmap_size], spec)
        keys, values = spec.codec.decode(body[spec.bitmap_size :], spec.shape, spec.num_rows)
    except CorruptFrameError as error:
        where = f"frame from {spec.sender} at layer {frame.header.layer}"
        raise CorruptFrameError(f"{where}: {error}") from None
    if spec.codec.keys_before_rope:
        keys = _require_rotary(spec.codec, rotary).apply(keys, positions)
    return KvRows(keys=keys, values=values, positions=positions)


def decode_frame(
    data: bytes | bytearray | memoryview, spec: FrameSpec, rotary: Rotary | None = None
) -> KvRows:
    """Check and decode a whole frame; keys come after RoPE.

    Raises:
        MalformedFrameError: it does not fit `spec`.
        CorruptFrameError: checksum, positions or values are wrong.
    """
    return decode_body(check_frame(data, spec), spec, rotary)


def read_positions(frame: bytes, spec: FrameSpec) -> IntArray:
    """Global positions of the rows of a checked frame in the clear, [num_rows] int64."""
    bitmap = memoryview(frame)[HEADER_SIZE : HEADER_SIZE + spec.bitmap_size]
    return _read_positions(bitmap, spec)


def _require_rotary(codec: Codec, rotary: Rotary | None) -> Rotary:
    if rotary is None:
        raise ValueError(f"codec {codec.name} sends keys before RoPE and needs the model's rotary")
    return rotary


def _write_bitmap(positions: IntArray, span: Span) -> bytes:
    if positions[0] < span.start or positions[-1] >= span.stop:
        raise ValueError(f"rows at {positions[0]} to {positions[-1]} are not all of {span}")
    if len(positions) == len(span):
        return b""
    kept = np.zeros(len(span), dtype=np.bool_)
    kept[positions - span.start] = True
    return np.packbits(kept, bitorder="little").tobytes()


def _read_positions(bitmap: memoryview, spec: FrameSpec) -> IntArray:
    """Global positions of the rows, [num_rows] int64."""
    if not bitmap:
        return np.arange(spec.span.start, spec.span.stop, dtype=np.int64)
    bits = np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8), bitorder="little")
    kept = np.flatnonzero(bits)
    if len(kept) != spec.num_rows or kept[-1] >= len(spec.span):
        raise CorruptFrameError(
            f"bitmap expected {spec.num_rows} rows within {len(spec.span)} positions, got "
            f"{len(kept)}"
        )
    return (kept + spec.span.start).astype(np.int64)
