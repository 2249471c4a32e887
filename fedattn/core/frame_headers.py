"""The header of a frame (`fedattn.core.frames`): written, read, and held against its session."""

import struct
from dataclasses import dataclass

from fedattn.core.codecs import Codec, find_codec
from fedattn.core.errors import MalformedFrameError
from fedattn.core.seals import SEAL_SIZE
from fedattn.core.spans import Span
from fedattn.core.types import HeadCounts, KvShape

MAGIC = b"FKV1"
FRAME_VERSION = 4
HEADER_SIZE = 36
MAX_FRAME_SIZE = 1 << 30
_FIELDS = struct.Struct("<4sBBBBHHHHIIII")
_SEALING_PLACE, _LAYER_PLACE, _BODY_SIZE_PLACE = 4, 5, 12
_CHECKSUM = struct.Struct("<I")
_ALL_ROWS, _BITMAPS, _BITMAPS_AND_BIASES = 0, 1, 2
_CLEAR, _SEALED = 0, 1


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
    return 0 if all(count == span_len for count in counts) else len(counts) * ((span_len + 7) // 8)


def max_frame_size(spec: FrameSpec) -> int:
    """Bytes a frame never exceeds, header included; exact for a codec of fixed size."""
    payload_size = spec.codec.max_payload_size(spec.shape.head_dim, spec.counts)
    return HEADER_SIZE + spec.bitmaps_size + spec.biases_size + payload_size + spec.seal_size


def write_header(fields: bytes, checksum: int = 0) -> bytes:
    """The bytes of a header, of its fields and its checksum; a sealed frame has none."""
    return fields + _CHECKSUM.pack(checksum)


def sealed_fields(frame: bytes) -> tuple[int, bytes]:
    """The layer of a frame in the clear, and what `FrameHeader.fields` gives once it is sealed.

    Args:
        frame: as `encode_frame` gives it; its header is not checked again.
    """
    values = list(_FIELDS.unpack_from(frame))
    values[_SEALING_PLACE] = _SEALED
    values[_BODY_SIZE_PLACE] += SEAL_SIZE
    return values[_LAYER_PLACE], _FIELDS.pack(*values)


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
