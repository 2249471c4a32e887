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

from dataclasses import dataclass

from fedattn.core.checksums import checksum_of
from fedattn.core.codecs import Codec
from fedattn.core.errors import CorruptFrameError, InvalidRequestError, MalformedFrameError
from fedattn.core.frame_bitmaps import read_biases, read_bitmaps, write_biases, write_bitmaps
from fedattn.core.frame_headers import (
    HEADER_SIZE,
    FrameHeader,
    FrameSpec,
    check_header,
    parse_header,
    sealed_fields,
    write_header,
)
from fedattn.core.rotary import Rotary
from fedattn.core.seals import Seal
from fedattn.core.spans import Span
from fedattn.core.types import HeadRows, IntArray, head_slices


@dataclass(frozen=True, slots=True)
class ReceivedFrame:
    """A whole frame whose header fits its session; its body is still to be held against that.

    Attributes:
        header: what it says about itself, as it travelled.
        body: bitmaps, biases and payload.
    """

    header: FrameHeader
    body: bytes | bytearray | memoryview


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
    bitmaps = write_bitmaps(rows, span)
    biases = b"" if rows.biases is None else write_biases(rows.biases)
    header = FrameHeader(
        codec=codec, layer=layer, num_kv_heads=len(rows.counts), head_dim=keys.shape[1],
        num_rows=rows.num_rows, has_bitmaps=bool(bitmaps), has_biases=bool(biases),
        first_position=span.start, span_len=len(span),
        body_size=len(bitmaps) + len(biases) + len(payload),
    )  # fmt: skip
    fields, body = header.fields(), (bitmaps, biases, payload)
    return b"".join((write_header(fields, checksum_of(fields, *body)), *body))


def seal_frame(frame: bytes, seal: Seal) -> bytes:
    """The frame with its body sealed.

    Args:
        frame: as `encode_frame` gives it; its header is not checked again.
        seal: encrypts; binds the body to the header.
    """
    layer, fields = sealed_fields(frame)
    body = seal(layer, fields, memoryview(frame)[HEADER_SIZE:])
    return write_header(fields) + body


def open_frame(frame: ReceivedFrame, unseal: Seal) -> ReceivedFrame:
    """A sealed frame with its body in the clear; its header stays as it travelled.

    Raises:
        CorruptFrameError: from `unseal`; it is not what its sender sealed.
    """
    header = frame.header
    body = unseal(header.layer, header.fields(), frame.body)
    return ReceivedFrame(header, body)


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
        positions = read_bitmaps(body[: spec.bitmaps_size], spec)
        biases = read_biases(body[spec.bitmaps_size :], spec)
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
    positions = read_bitmaps(bitmaps, spec)
    return tuple(positions[head] for head in head_slices(spec.counts))


def _require_rotary(codec: Codec, rotary: Rotary | None) -> Rotary:
    if rotary is None:
        raise ValueError(f"codec {codec.name} sends keys before RoPE and needs the model's rotary")
    return rotary
