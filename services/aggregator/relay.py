"""The exchange of one member: rows in, rows of earlier spans out."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress

from fedattn.core.chunks import FrameValidator
from fedattn.core.errors import FedAttnError, InvalidRequestError, SessionAbortedError
from fedattn.wire.convert import chunk_from_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.session import Session


async def relay_member(
    session: Session,
    member_token: str,
    requests: AsyncIterator[pb.ExchangeRequest],
    *,
    report_timeout_s: float,
) -> AsyncGenerator[bytes | pb.ExchangeResponse, None]:
    """Serve one member's exchange stream until both directions have ended.

    Args:
        session: the session it belongs to.
        member_token: from its Hello.
        requests: what follows the Hello.
        report_timeout_s: how long the publisher's report waits for the others' last words.

    Raises:
        FrameError: the member broke the frame format; the others go on without it.
        SessionError: the session ended, or the member may not do this.
    """
    index = session.attach(member_token)
    upload = asyncio.create_task(_upload(session, index, requests, report_timeout_s))
    outbox = session.outboxes[index]
    try:
        while (message := await outbox.get()) is not None:
            yield message
        if index in session.errors:
            raise session.errors[index]
        await upload
    finally:
        upload.cancel()
        session.mark_lost(index, SessionAbortedError("its connection broke"))


async def _upload(
    session: Session,
    index: int,
    requests: AsyncIterator[pb.ExchangeRequest],
    report_timeout_s: float,
) -> None:
    guard = FrameValidator(session.state.rules(index), session.state.routes[index].uploads)
    try:
        async for request in requests:
            match request.WhichOneof("body"):
                case "chunk":
                    chunk = chunk_from_wire(request.chunk)
                    guard.accept(chunk)
                    if chunk.is_last:
                        session.state.ledgers[index].awaited.discard(chunk.layer)
                    await session.forward(index, chunk, _passed_on(request, index))
                case "done":
                    await _finish(session, index, request.done, report_timeout_s)
                    return
                case other:
                    raise InvalidRequestError(f"expected a chunk or done, got {other}")
        raise SessionAbortedError("it ended its stream before it was done")
    except FedAttnError as error:
        session.mark_lost(index, error)  # which ends the stream with this error


def _passed_on(request: pb.ExchangeRequest, sender: int) -> bytes:
    """The sender's message as an ExchangeResponse: both number `chunk` alike."""
    request.DiscardUnknownFields()
    request.chunk.sender = sender
    return request.SerializeToString()


async def _finish(
    session: Session, index: int, done: pb.MemberDone, report_timeout_s: float
) -> None:
    awaited = session.state.ledgers[index].awaited
    if awaited:
        raise InvalidRequestError(
            f"{session.state.member(index).node_id} says it is done, "
            f"but its rows of layer {min(awaited)} never came"
        )
    session.complete(index, done)
    if session.state.is_publisher(index):
        with suppress(TimeoutError):  # the report shows who has not said its last words
            async with asyncio.timeout(report_timeout_s):
                await session.over.wait()
        session.send_report()
