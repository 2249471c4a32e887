"""A running query as server-sent events."""

from collections.abc import AsyncIterator

import structlog
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from fedattn.core.errors import ProtocolMismatchError
from fedattn.rest.problems import Problem
from gateway.problems import problem_of
from gateway.query_call import QueryCall, QueryEvent
from gateway.report import answer_from_wire, layer_from_wire, session_from_wire, token_from_wire

SEND_TIMEOUT_S = 30.0
"""A client that takes nothing for so long loses its query and gives its place free."""

log = structlog.get_logger(__name__)


class QueryEventStream(EventSourceResponse):
    """Streams a started query; closes it at the end, whatever the end is."""

    def __init__(self, call: QueryCall) -> None:
        super().__init__(_encode_all(call), send_timeout=SEND_TIMEOUT_S)
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            log.warning("client_too_slow", send_timeout_s=SEND_TIMEOUT_S)
        finally:
            self._call.close()


async def _encode_all(call: QueryCall) -> AsyncIterator[ServerSentEvent]:
    try:
        async for event in call.events():
            yield _encode(*_convert(event))
    except Exception as error:  # border: the answer has begun, so no status tells
        yield _encode("error", problem_of(error))


def _convert(event: QueryEvent) -> tuple[str, BaseModel]:
    match event.WhichOneof("body"):
        case "opened":
            return "session", session_from_wire(event.opened)
        case "layer":
            return "layer", layer_from_wire(event.layer)
        case "token":
            return "token", token_from_wire(event.token)
        case "result":
            return "report", answer_from_wire(event.result)
    raise ProtocolMismatchError(
        "the publisher sent an event that is not known here; upgrade the gateway"
    )


def _encode(name: str, data: BaseModel) -> ServerSentEvent:
    is_problem = isinstance(data, Problem)
    return ServerSentEvent(data.model_dump_json(exclude_none=is_problem), event=name)
