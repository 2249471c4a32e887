"""A running query as server-sent events."""

from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import structlog
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from fedattn.rest.answers import EVENT_MODELS, QueryEvent
from fedattn.rest.problems import Problem
from gateway.problems import problem_of
from gateway.query_call import QueryCall
from gateway.report import event_from_wire

SEND_TIMEOUT_S = 30.0
"""A client that takes nothing for so long loses its query and gives its place free."""

Encode: TypeAlias = Callable[[QueryEvent | Problem], ServerSentEvent]
"""How one API writes what happens; a problem is the last it is given, and so is an answer."""

_NAMES = {model: name for name, model in EVENT_MODELS.items()}

log = structlog.get_logger(__name__)


def encode_event(event: QueryEvent | Problem) -> ServerSentEvent:
    """As `/v1/queries` documents it."""
    is_problem = isinstance(event, Problem)
    return ServerSentEvent(
        event.model_dump_json(exclude_none=is_problem), event=_NAMES[type(event)]
    )


class QueryEventStream(EventSourceResponse):
    """Streams a started query; closes it at the end, whatever the end is.

    Args:
        call: the query.
        encode: how its events are written.
    """

    def __init__(self, call: QueryCall, encode: Encode = encode_event) -> None:
        super().__init__(_encode_all(call, encode), send_timeout=SEND_TIMEOUT_S)
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            log.warning("client_too_slow", send_timeout_s=SEND_TIMEOUT_S)
        finally:
            self._call.close()


async def _encode_all(call: QueryCall, encode: Encode) -> AsyncIterator[ServerSentEvent]:
    try:
        async for event in call.events():
            yield encode(event_from_wire(event))
    except Exception as error:  # border: the answer has begun, so no status tells
        yield encode(problem_of(error))
