"""The KV frame: the rows of one participant at one layer, self-describing and checksummed.

Little-endian, 36 bytes of header, then the body:

    offset  size  field
    0       4     magic "FKV1"
    4       1     frame version, 4
    5       1     codec number
    6       1     position encoding, 0 = all rows of the span, 1 = bitmaps
    7       1     sealing of the body, 0 = none, 1 = AES-256-GCM
    8       2     layer, zero-based
    10      2     key/value heads
    12      2     head size
    14      2     reserved, 0
    16      4     rows of all heads
    20      4     first position of the span, global
    24      4     positions in the span
    28      4     body size in bytes
    32      4     CRC-32 of bytes 0..31 and the body; 0 of a sealed frame

    body = the bitmaps and the biases, if there are any, then the payload of the codec

There is a bitmap for each head, head after head. It has one bit for each position of the span,
lowest bit first, set where a row of that head travels; it fills whole bytes. There is a bias for
each row, a signed byte in sixteenths, from -127 to 127.
A sealed body is encrypted, SEAL_SIZE bytes longer, and bound to bytes 0..31 of its header, which
stay readable for whoever passes the frame on. Its seal shows any change, as the checksum does where
there is none. Either is looked at by who reads the rows.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedattn.core.checksums import checksum_of
from fedattn.core.codecs import Codec, find_codec
from fedattn.core.errors import CorruptFrameError, InvalidRequestError, MalformedFrameError
from fedattn.core.rotary import Rotary
from fedattn.core.spans import Span
from fedattn.core.types import (
    FloatArray,
    HeadCounts,
    HeadRows,
    IntArray,
    KvShape,
    head_slices,
)

MAGIC = b"FKV1"
FRAME_VERSION = 4
HEADER_SIZE = 36
SEAL_SIZE = 16
"""Bytes that sealing adds to a body: the tag that shows any change."""
MAX_FRAME_SIZE = 1 << 30
_FIELDS = struct.Struct("<4sBBBBHHHHIIII")
_SEALING_PLACE, _LAYER_PLACE, _BODY_SIZE_PLACE = 4, 5, 12
_CHECKSUM = struct.Struct("<I")
_ALL_ROWS, _BITMAPS, _BITMAPS_AND_BIASES = 0, 1, 2
_BIAS_STEP = np.float32(1 / 16)
_TOP_BIAS = 127
_CLEAR, _SEALED = 0, 1

Seal = Callable[[int, bytes, bytes | bytearray | memoryview], bytes]
"""(nonce, authenticated header, body) -> the body, sealed or opened; a frame has its layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameHeader:
    """What a frame says about itself, checked for internal consistency."""

    codec: Codec
    layer: int
    num_kv_heads: int
    head_dim: int
    num_rows: int
    has_bitmaps: bool
    has_biases: bool = False
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
        encoding = _BITMAPS_AND_BIASES if self.has_biases else _BITMAPS
        return _FIELDS.pack(
            MAGIC, FRAME_VERSION, self.codec.codec_id, encoding if self.has_bitmaps else _ALL_ROWS,
            _SEALED if self.is_sealed else _CLEAR, self.layer, self.num_kv_heads, self.head_dim, 0,
            self.num_rows, self.first_position, self.span_len, self.body_size,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSpec:
    """What a receiver accepts from one sender at one layer; all else is refused before allocation.

    Attributes:
        sender: id of the node.
        shape: of the model.
        codec: how rows are written.
        span: whose rows these are, where they are computed.
        counts: rows of each head.
        is_refitted: whether rows have biases, if not all of them travel.
        is_sealed: whether the body is encrypted.
    """

    sender: str
    shape: KvShape
    codec: Codec
    span: Span
    counts: HeadCounts
    is_refitted: bool = False
    is_sealed: bool = False

    def __post_init__(self) -> None:
        if len(self.counts) != self.shape.num_kv_heads:
            raise ValueError(
                f"FrameSpec needs the rows of each of {self.shape.num_kv_heads} heads, got those "
                f"of {len(self.counts)}"
            )

    @property
    def num_rows(self) -> int:
        """Of all heads."""
        return sum(self.counts)

    @property
    def bitmaps_size(self) -> int:
        return bitmaps_size(len(self.span), self.counts)

    @property
    def biases_size(self) -> int:
        return self.num_rows if self.is_refitted and self.bitmaps_size else 0

    @property
    def seal_size(self) -> int:
        return SEAL_SIZE if self.is_sealed else 0


def bitmaps_size(span_len: int, counts: HeadCounts) -> int:
    """Bytes that tell which rows travel; none if all do."""
    return 0 if _are_all(counts, span_len) else len(counts) * ((span_len + 7) // 8)


def _are_all(counts: HeadCounts, span_len: int) -> bool:
    return all(count == span_len for count in counts)


def max_frame_size(spec: FrameSpec) -> int:
    """Bytes a frame never exceeds, header included; exact for a codec of fixed size."""
    payload_size = spec.codec.max_payload_size(spec.shape.head_dim, spec.counts)
    return HEADER_SIZE + spec.bitmaps_size + spec.biases_size + payload_size + spec.seal_size


def encode_frame(
    rows: HeadRows, layer: int, codec: Codec, span: Span, rotary: Rotary | None = None
) -> bytes:
    """Encode rows of one layer.

    Args:
        rows: at least one, at positions of the span.
        layer: zero-based.
        codec: how K and V are written.
        span: whose rows these are.
        rotary: of the block; needed by codecs that send keys before RoPE.

    Raises:
        InvalidRequestError: a value does not fit the codec.
    """
    keys = rows.keys
    if codec.keys_before_rope:
        keys = _require_rotary(codec, rotary).undo(keys, rows.positions)
    try:
        payload = codec.encode(keys, rows.values, rows.counts)
    except OverflowError as error:
        raise InvalidRequestError(f"layer {layer}: {error}") from error
    bitmaps = _write_bitmaps(rows, span)
    biases = b"" if rows.biases is None else _write_biases(rows.biases)
    header = FrameHeader(
        codec=codec, layer=layer, num_kv_heads=len(rows.counts), head_dim=keys.shape[1],
        num_rows=rows.num_rows, has_bitmaps=bool(bitmaps), has_biases=bool(biases),
        first_position=span.start, span_len=len(span),
        body_size=len(bitmaps) + len(biases) + len(payload),
    )  # fmt: skip
    fields, body = header.fields(), (bitmaps, biases, payload)
    return b"".join((fields, _CHECKSUM.pack(checksum_of(fields, *body)), *body))


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
    body = seal(values[_LAYER_PLACE], fields, memoryview(frame)[HEADER_SIZE:])
    return b"".join((fields, _CHECKSUM.pack(0), body))


def open_frame(frame: "ReceivedFrame", unseal: Seal) -> "ReceivedFrame":
    """A sealed frame with its body in the clear; its header stays as it travelled.

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
    known = encoding in {_ALL_ROWS, _BITMAPS, _BITMAPS_AND_BIASES} and sealing in {_CLEAR, _SEALED}
    if magic != MAGIC or version != FRAME_VERSION or not known or zero:
        raise MalformedFrameError(
            f"frame from {sender}: expected magic {MAGIC!r}, version {FRAME_VERSION}, a known "
            f"position encoding and sealing, and zero reserved bytes, got {magic!r}, version "
            f"{version}, encoding {encoding}, sealing {sealing}; upgrade the older node"
        )
    if codec is None:
        raise MalformedFrameError(f"frame from {sender}: codec {codec_id} is not known here")
    checksum, is_sealed = _CHECKSUM.unpack_from(data, _FIELDS.size)[0], sealing == _SEALED
    if is_sealed and checksum:
        raise MalformedFrameError(f"frame from {sender}: it is sealed and has a checksum too")
    return FrameHeader(
        codec=codec, layer=layer, num_kv_heads=heads, head_dim=head_dim, num_rows=rows,
        has_bitmaps=encoding != _ALL_ROWS, has_biases=encoding == _BITMAPS_AND_BIASES,
        is_sealed=is_sealed, first_position=first,
        span_len=span_len, body_size=size, checksum=checksum,
    )  # fmt: skip


def check_header(header: FrameHeader, spec: FrameSpec) -> None:
    """Refuse a frame that does not fit its session.

    Raises:
        MalformedFrameError: names the sender, what was expected and what came.
    """
    shape, span, codec = spec.shape, spec.span, spec.codec
    largest = max_frame_size(spec) - HEADER_SIZE
    least = spec.bitmaps_size + spec.biases_size + 1 + spec.seal_size
    smallest = largest if codec.is_fixed_size else min(least, largest)
    expected: dict[str, tuple[object, object]] = {
        "codec": (codec.name, header.codec.name),
        "key/value heads": (shape.num_kv_heads, header.num_kv_heads),
        "head size": (shape.head_dim, header.head_dim),
        "rows": (spec.num_rows, header.num_rows),
        "bitmaps": (spec.bitmaps_size > 0, header.has_bitmaps),
        "biases": (spec.biases_size > 0, header.has_biases),
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
    """A whole frame whose header fits its session; its body is still to be held against that.

    Attributes:
        header: what it says about itself, as it travelled.
        body: bitmaps, biases and payload.
    """

    header: FrameHeader
    body: bytes | bytearray | memoryview


def check_frame(data: bytes | bytearray | memoryview, spec: FrameSpec) -> ReceivedFrame:
    """Check the header of a whole frame, and its size.

    Raises:
        MalformedFrameError: it does not fit `spec`.
    """
    view = memoryview(data)
    header = parse_header(view, spec.sender)
    check_header(header, spec)
    if len(view) != header.frame_size:
        raise MalformedFrameError(
            f"frame from {spec.sender} at layer {header.layer}: expected {header.frame_size} "
            f"bytes, got {len(view)}"
        )
    return ReceivedFrame(header, view[HEADER_SIZE:])


def decode_body(frame: ReceivedFrame, spec: FrameSpec, rotary: Rotary | None = None) -> HeadRows:
    """Rows of a frame in the clear; keys come after RoPE.

    Raises:
        CorruptFrameError: checksum, positions or values are wrong.
    """
    body = memoryview(frame.body)
    try:
        _verify_checksum(frame)
        positions = _read_positions(body[: spec.bitmaps_size], spec)
        biases = _read_biases(body[spec.bitmaps_size :], spec)
        payload = body[spec.bitmaps_size + spec.biases_size :]
        keys, values = spec.codec.decode(payload, spec.shape.head_dim, spec.counts)
    except CorruptFrameError as error:
        where = f"frame from {spec.sender} at layer {frame.header.layer}"
        raise CorruptFrameError(f"{where}: {error}") from None
    if spec.codec.keys_before_rope:
        keys = _require_rotary(spec.codec, rotary).apply(keys, positions)
    return HeadRows(
        keys=keys, values=values, positions=positions, counts=spec.counts, biases=biases
    )


def _verify_checksum(frame: ReceivedFrame) -> None:
    """Whether the bytes are those that left; a seal has shown it already."""
    header = frame.header
    if header.is_sealed:
        return
    if (found := checksum_of(header.fields(), frame.body)) != header.checksum:
        raise CorruptFrameError(
            f"checksum expected {header.checksum:08x}, got {found:08x}; the bytes changed on the "
            f"way"
        )


def decode_frame(
    data: bytes | bytearray | memoryview, spec: FrameSpec, rotary: Rotary | None = None
) -> HeadRows:
    """Check and decode a whole frame; keys come after RoPE.

    Raises:
        MalformedFrameError: it does not fit `spec`.
        CorruptFrameError: checksum, positions or values are wrong.
    """
    return decode_body(check_frame(data, spec), spec, rotary)


def read_positions(frame: bytes, spec: FrameSpec) -> tuple[IntArray, ...]:
    """Global positions of the rows of a checked frame in the clear, [count] int64 of each head."""
    bitmaps = memoryview(frame)[HEADER_SIZE : HEADER_SIZE + spec.bitmaps_size]
    positions = _read_positions(bitmaps, spec)
    return tuple(positions[head] for head in head_slices(spec.counts))


def _write_biases(biases: FloatArray) -> bytes:
    codes = np.clip(np.rint(biases / _BIAS_STEP), -_TOP_BIAS, _TOP_BIAS)
    written: bytes = codes.astype(np.int8).tobytes()
    return written


def _read_biases(body: memoryview, spec: FrameSpec) -> FloatArray | None:
    """[N] float32; None if there are none."""
    if not spec.biases_size:
        return None
    codes = np.frombuffer(body, dtype=np.int8, count=spec.num_rows)
    if codes.min() < -_TOP_BIAS:
        raise CorruptFrameError(f"a bias is out of range, at least {-_TOP_BIAS} was expected")
    return codes * _BIAS_STEP


def _require_rotary(codec: Codec, rotary: Rotary | None) -> Rotary:
    if rotary is None:
        raise ValueError(f"codec {codec.name} sends keys before RoPE and needs the model's rotary")
    return rotary


def _write_bitmaps(rows: HeadRows, span: Span) -> bytes:
    places = rows.positions - span.start
    if places.min() < 0 or places.max() >= len(span):
        low, high = rows.positions.min(), rows.positions.max()
        raise ValueError(f"rows at {low} to {high} are not all of {span}")
    if _are_all(rows.counts, len(span)):
        return b""
    kept = np.zeros((len(rows.counts), len(span)), dtype=np.bool_)
    for bits, head in zip(kept, rows.heads, strict=True):
        bits[places[head]] = True
    return np.packbits(kept, axis=1, bitorder="little").tobytes()


def _read_positions(bitmaps: memoryview, spec: FrameSpec) -> IntArray:
    """Global positions of the rows, [N] int64."""
    if not bitmaps:
        return np.tile(np.arange(spec.span.start, spec.span.stop), len(spec.counts))
    packed = np.frombuffer(bitmaps, dtype=np.uint8).reshape(len(spec.counts), -1)
    bits = np.unpackbits(packed, axis=1, bitorder="little")
    for head, (expected, got) in enumerate(zip(spec.counts, bits.sum(axis=1), strict=True)):
        if got != expected:
            raise CorruptFrameError(
                f"bitmap of head {head} expected {expected} rows within {len(spec.span)} "
                f"positions, got {got}"
            )
    if bits[:, len(spec.span) :].any():
        raise CorruptFrameError(f"bitmap has rows behind its {len(spec.span)} positions")
    return np.nonzero(bits)[1] + spec.span.start
