"""Messages of an exchange as bytes: a chunk is read where it lies and passed on as it came.

Protobuf would copy the rows out of a message and into the next. All other messages are read by it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from fedattn.core.chunks import Chunk
from fedattn.core.errors import FedAttnError, InvalidRequestError, MalformedFrameError
from fedattn.wire.texts import clean_texts
from fedattn.wire.v1 import aggregator_pb2 as pb

M = TypeVar("M", bound=Message)

EXCHANGE = "/fedattn.wire.v1.AggregatorService/Exchange"
"""The method whose messages are bytes to gRPC."""
_CHUNK_TAG, _DATA_TAG = 0x12, 0x2A  # field 2 of the message, field 5 of KvChunk: sizes follow
_NUM_NUMBERS = 4  # of KvChunk, fields 1 to 4, before its data
_MAX_VARINT_SIZE = 5
_LARGEST_NUMBER = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class SentChunk:
    """A chunk with the message that carries it, the same in both directions.

    Attributes:
        sender: place of the member that says it sent it.
        chunk: its data lie in `message`.
        message: a serialized ExchangeRequest and ExchangeResponse.
    """

    sender: int
    chunk: Chunk
    message: bytes


Request = pb.ExchangeRequest | SentChunk
Response = pb.ExchangeResponse | SentChunk


def write_chunk(chunk: Chunk, sender: int) -> bytes:
    """The message of a chunk; as Protobuf writes it, with one copy of the data."""
    numbers = (sender, chunk.layer, chunk.offset, chunk.frame_size)
    fields = b"".join(
        bytes((index << 3,)) + _write_varint(number)
        for index, number in enumerate(numbers, 1)
        if number
    )
    fields += bytes((_DATA_TAG,)) + _write_varint(len(chunk.data))
    size = _write_varint(len(fields) + len(chunk.data))
    return b"".join((bytes((_CHUNK_TAG,)), size, fields, chunk.data))


def read_request(message: bytes) -> Request:
    """What a member says.

    Raises:
        MalformedFrameError: its chunk is not written as `write_chunk` does.
        InvalidRequestError: it is no ExchangeRequest.
    """
    return _read_chunk(message) if _is_chunk(message) else _parse(pb.ExchangeRequest, message)


def read_response(message: bytes) -> Response:
    """What a member is told; raises as `read_request`."""
    return _read_chunk(message) if _is_chunk(message) else _parse(pb.ExchangeResponse, message)


async def read_requests(messages: AsyncIterator[bytes]) -> AsyncIterator[Request]:
    """Each message, as `read_request`."""
    async for message in messages:
        yield read_request(message)


def to_bytes(message: Message | bytes) -> bytes:
    """A message that is not serialized yet, serialized."""
    return message if isinstance(message, bytes) else message.SerializeToString()


def decline_of(error: FedAttnError) -> pb.Decline:
    """Why a contributor cannot take part, or cannot go on."""
    return pb.Decline(code=error.code, message=str(error))


def _parse(kind: type[M], message: bytes) -> M:
    try:
        return clean_texts(kind.FromString(message))
    except DecodeError:
        name = kind.DESCRIPTOR.name
        raise InvalidRequestError(f"expected a message {name}, got {len(message)} bytes") from None


def _is_chunk(message: bytes) -> bool:
    return message[:1] == bytes((_CHUNK_TAG,))


def _read_chunk(message: bytes) -> SentChunk:
    """Fields in ascending order, each at most once, nothing unknown, the data last."""
    numbers = [0] * _NUM_NUMBERS
    try:
        size, place = _read_varint(message, 1)
        is_whole = place + size == len(message)
        last = 0
        while (tag := message[place]) != _DATA_TAG:
            number = tag >> 3
            if tag & 7 or not last < number <= _NUM_NUMBERS:
                raise MalformedFrameError(f"chunk has a tag {tag} behind field {last}")
            numbers[number - 1], place = _read_varint(message, place + 1)
            last = number
        size, place = _read_varint(message, place + 1)
        is_whole = is_whole and place + size == len(message)
    except IndexError:
        is_whole = False
    if not is_whole:
        raise MalformedFrameError(f"chunk in a message of {len(message)} bytes has another size")
    sender, layer, offset, frame_size = numbers
    data = memoryview(message)[place:]
    chunk = Chunk(layer=layer, offset=offset, frame_size=frame_size, data=data)
    return SentChunk(sender, chunk, message)


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    """The number at a place, and the place behind it; IndexError behind the end."""
    number = 0
    for index in range(_MAX_VARINT_SIZE):
        byte = message[place + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80 and number <= _LARGEST_NUMBER:
            return number, place + index + 1
    raise MalformedFrameError(f"chunk has a number beyond {_LARGEST_NUMBER}")


def _write_varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
