"""Putting a query to its publisher, as one document or as a stream."""

from collections.abc import Callable, Coroutine
from contextlib import ExitStack, closing
from typing import Any

from fastapi import Request

from fedattn.core.share import Share
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.query import QueryBody
from gateway.attempts import Attempts
from gateway.callers import Caller
from gateway.disconnect import unless_disconnected
from gateway.events import Encode, QueryEventStream
from gateway.publishers import Publishers
from gateway.query import query_to_wire
from gateway.waiting import Patience


class Asking:
    """How all routes ask.

    Args:
        publishers: where queries go.
        default_share: what contributors may know of a question that does not say.
    """

    def __init__(self, publishers: Publishers, default_share: Share) -> None:
        self.publishers = publishers
        self._default_share = default_share

    def starting(
        self, caller: Caller, body: QueryBody
    ) -> Callable[[], Coroutine[Any, Any, Attempts]]:
        """What puts a query into the line; the query itself is checked at once.

        Raises:
            InvalidInputError: it cannot be asked.
        """
        query = query_to_wire(body, self._default_share, caller)
        patience = Patience.of(body, is_background=body.background)
        moves = body.publisher is None and self.publishers.may_choose

        async def begin() -> Attempts:
            asked = await self.publishers.start_query(caller, body.publisher, query, patience)
            return Attempts(asked, retries=body.retry, moves=moves)

        return begin

    async def ask(
        self, request: Request, caller: Caller, body: QueryBody, encode: Encode
    ) -> QueryAnswer | QueryEventStream:
        """The answer, or its stream if the body says so, once it waits or its session is open.

        Args:
            request: its body must have been read.
            caller: who asks.
            body: what is asked.
            encode: how events of a stream are written.

        Raises:
            FedAttnError: the query failed before its first event.
            ClientDisconnect: the client went away.
        """
        starting = self.starting(caller, body)
        query = await unless_disconnected(request, starting())
        with ExitStack() as stack:
            stack.enter_context(closing(query))
            if body.stream:
                await unless_disconnected(request, query.wait_started())
                stack.pop_all()  # the stream closes the query
                return QueryEventStream(query, encode)
            return await unless_disconnected(request, query.answer())
