"""The exchange of one member: rows in, rows of earlier spans out."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress

import structlog

from fedattn.core.errors import (
    FedAttnError,
    InternalError,
    InvalidRequestError,
    SessionAbortedError,
    error_from_code,
)
from fedattn.wire.exchange import Request, SentChunk
from fedattn.wire.peer_gate import why_expelled
from fedattn.wire.protocol import MAX_REASON_LENGTH
from fedattn.wire.security import CheckCaller
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.registry import Node
from services.aggregator.session import Session

log = structlog.get_logger(__name__)

_BREAKS_WITHIN_S = 1.0
"""Of a call that broke the requests end first; so long it takes at most until the rest does."""


async def relay_member(  # noqa: PLR0913 - spelt out
    session: Session,
    member_token: str,
    requests: AsyncIterator[Request],
    *,
    check_caller: CheckCaller,
    report_timeout_s: float,
    why_broken: Callable[[Node], str],
) -> AsyncGenerator[bytes | pb.ExchangeResponse, None]:
    """Serve one member's exchange stream until both directions have ended.

    Args:
        session: the session it belongs to.
        member_token: from its Hello.
        requests: what follows the Hello.
        check_caller: refuses who is not the node of that member.
        report_timeout_s: how long the publisher's report waits for the others' last words.
        why_broken: what became of a node whose stream broke.

    Raises:
        FrameError: the member broke the frame format; the others go on without it.
        SessionError: the session ended, or the member may not do this.
    """
    index = session.attach(member_token, check_caller)
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
        broken = SessionAbortedError(why_broken(session.opened.members[index].node))
        session.mark_lost(index, why_expelled() or broken)
        if session.state.is_publisher(index):  # perhaps after its last word, before its report
            session.abort("the publisher is gone")


async def _upload(
    session: Session,
    index: int,
    requests: AsyncIterator[Request],
    report_timeout_s: float,
) -> None:
    try:
        await _take_all(session, index, requests)
        await _report(session, index, report_timeout_s)
    except FedAttnError as error:
        session.mark_lost(index, error)  # which ends the stream with this error
    except Exception:  # border: a defect here must not keep the member waiting
        log.exception("upload_failed", session=session.session_id)
        session.mark_lost(index, InternalError("the relay failed; see the aggregator's log"))
        session.outboxes[index].close()  # also after its last word


async def _take_all(session: Session, index: int, requests: AsyncIterator[Request]) -> None:
    """Pass on a member's chunks until its last word."""
    async for request in requests:
        if isinstance(request, SentChunk):
            await session.accept(index, request)
            continue
        match request.WhichOneof("body"):
            case "key":
                session.pass_key(index, request)
            case "queries":
                await session.pass_queries(index, request)
            case "part":
                await session.pass_part(index, request)
            case "done":
                session.complete(index, request.done)
                return
            case "failed":
                failed = request.failed
                raise error_from_code(failed.code, failed.message[:MAX_REASON_LENGTH])
            case other:
                raise InvalidRequestError(f"expected a chunk or done, got {other}")
    with suppress(TimeoutError):  # of a call that broke, which cancels this
        async with asyncio.timeout(_BREAKS_WITHIN_S):
            await session.over.wait()
    raise SessionAbortedError("it ended its stream before it was done")


async def _report(session: Session, index: int, report_timeout_s: float) -> None:
    """The report follows the publisher's last word, once the others have said theirs."""
    if session.state.is_publisher(index):
        with suppress(TimeoutError):  # the report shows who has not said its last words
            async with asyncio.timeout(report_timeout_s):
                await session.over.wait()
        session.send_report()
