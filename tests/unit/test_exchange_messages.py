"""A chunk is read where it lies: as Protobuf would, or refused."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.chunks import MAX_CHUNK_SIZE, Chunk
from fedattn.core.errors import FedAttnError, InvalidRequestError, MalformedFrameError
from fedattn.wire.exchange import (
    SentChunk,
    read_request,
    read_requests,
    read_response,
    to_bytes,
    write_chunk,
)
from fedattn.wire.protocol import MAX_MESSAGE_SIZE
from fedattn.wire.v1 import aggregator_pb2 as pb

LARGEST = 2**32 - 1
CHUNK = Chunk(layer=3, offset=7, frame_size=300, data=b"abc")
NUMBERS = st.integers(0, LARGEST)


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.binary(max_size=300))
def test_a_chunk_is_what_protobuf_writes_and_reads(
    sender: int, layer: int, offset: int, frame_size: int, data: bytes
) -> None:
    chunk = Chunk(layer=layer, offset=offset, frame_size=frame_size, data=data)
    wire = pb.KvChunk(
        sender=sender, layer=layer, offset=offset, frame_size=frame_size, data=data or b"\0"
    )
    message = write_chunk(chunk, sender)
    if data:
        assert message == pb.ExchangeRequest(chunk=wire).SerializeToString()
        assert message == pb.ExchangeResponse(chunk=wire).SerializeToString()
    assert read_request(message) == read_response(message) == SentChunk(sender, chunk, message)


def test_the_data_of_a_chunk_lie_in_its_message() -> None:
    message = write_chunk(CHUNK, 5)
    sent = read_request(message)
    assert isinstance(sent, SentChunk)
    assert sent.message is message
    assert isinstance(sent.chunk.data, memoryview)
    assert sent.chunk.data.obj is message


def test_largest_chunk_is_within_the_message_limit() -> None:
    data = bytes(MAX_CHUNK_SIZE)
    chunk = Chunk(layer=LARGEST, offset=LARGEST, frame_size=LARGEST, data=data)
    assert len(write_chunk(chunk, LARGEST)) <= MAX_MESSAGE_SIZE


def with_size(fields: bytes) -> bytes:
    return bytes((0x12, len(fields))) + fields


DATA = b"\x2a\x03abc"


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (with_size(b"\x10\x03\x08\x01" + DATA), "tag 8 behind field 2"),
        (with_size(b"\x08\x01\x08\x01" + DATA), "tag 8 behind field 1"),
        (with_size(b"\x32\x01x" + DATA), "tag 50 behind field 0"),
        (with_size(b"\x0d\0\0\0\0" + DATA), "tag 13 behind field 0"),
        (with_size(b"\x08\xff\xff\xff\xff\x7f" + DATA), f"beyond {LARGEST}"),
        (with_size(b"\x08\x80\x80\x80\x80\x80\0" + DATA), f"beyond {LARGEST}"),
        (with_size(DATA + b"\x30\x01"), "another size"),
        (with_size(DATA) + b"\xfa\x07\x03xyz", "another size"),
        (with_size(DATA) + with_size(DATA), "another size"),
        (with_size(DATA)[:-1], "another size"),
        (with_size(b"\x08\x01"), "another size"),
        (b"\x12", "another size"),
    ],
)
def test_a_chunk_that_holds_anything_else_is_refused(message: bytes, complaint: str) -> None:
    for read in (read_request, read_response):
        with pytest.raises(MalformedFrameError, match=complaint):
            read(message)


@given(st.binary(max_size=40), st.integers(0, 40))
def test_any_bytes_are_read_or_refused(noise: bytes, cut: int) -> None:
    for message in (noise, b"\x12" + noise, write_chunk(CHUNK, 1)[:cut] + noise):
        for read in (read_request, read_response):
            try:
                sent = read(message)
            except FedAttnError:
                continue
            if isinstance(sent, SentChunk):
                wire = pb.ExchangeRequest.FromString(message).chunk
                chunk = sent.chunk
                assert (wire.sender, wire.layer, wire.offset) == (
                    sent.sender,
                    chunk.layer,
                    chunk.offset,
                )
                assert (wire.frame_size, wire.data) == (chunk.frame_size, chunk.data)


async def test_other_messages_are_read_with_clean_texts() -> None:
    failed = pb.ExchangeRequest(failed=pb.Decline(code="x", message="\x1b[2J"))
    lost = pb.ExchangeResponse(lost=pb.MemberLost(member=1, reason="\x1b[2J"))

    async def messages() -> AsyncIterator[bytes]:
        yield failed.SerializeToString()

    (request,) = [one async for one in read_requests(messages())]
    response = read_response(to_bytes(lost))
    assert isinstance(request, pb.ExchangeRequest)
    assert isinstance(response, pb.ExchangeResponse)
    assert "\x1b" not in request.failed.message + response.lost.reason


def test_what_is_no_message_is_named_so() -> None:
    with pytest.raises(InvalidRequestError, match="expected a message ExchangeRequest, got 2 byt"):
        read_request(b"\x0a\x7f")
