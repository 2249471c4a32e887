"""A running query as server-sent events."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeAlias

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from fedattn.rest.events import EVENT_MODELS, QueryEvent
from fedattn.rest.problems import Problem
from gateway.attempts import Attempts
from gateway.problems import problem_of

Encode: TypeAlias = Callable[[QueryEvent | Problem], Iterator[ServerSentEvent]]
"""How one API writes what happens; a problem is the last it is given, and so is an answer."""

_NAMES = {model: name for name, model in EVENT_MODELS.items()}


def written_event(event: QueryEvent | Problem) -> ServerSentEvent:
    """As `/v1/queries` documents it."""
    is_problem = isinstance(event, Problem)
    data = event.model_dump_json(exclude_none=is_problem)
    return ServerSentEvent(data, event=_NAMES[type(event)])


def encode_event(event: QueryEvent | Problem) -> Iterator[ServerSentEvent]:
    """The one that `written_event` makes."""
    yield written_event(event)


class QueryEventStream(EventSourceResponse):
    """Streams a query that has begun; closes it at the end, whatever the end is.

    A client that takes nothing is `PatientProtocol`'s matter.

    Args:
        query: what is asked.
        encode: how its events are written.
    """

    def __init__(self, query: Attempts, encode: Encode) -> None:
        super().__init__(_encode_all(query, encode))
        self._query = query

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._query.close()


async def _encode_all(query: Attempts, encode: Encode) -> AsyncIterator[ServerSentEvent]:
    try:
        async for event in query.events():
            for written in encode(event):
                yield written
    except Exception as error:  # border: the answer has begun, so no status tells
        for written in encode(problem_of(error)):
            yield written
