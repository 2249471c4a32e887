"""A query, put at most twice: once more without whoever was lost before its first token."""

from collections.abc import AsyncIterator
from copy import copy

import structlog

from fedattn.core.errors import (
    FedAttnError,
    NodeBusyError,
    NotEnoughParticipantsError,
    PublisherUnavailableError,
    RateLimitedError,
    UnavailableError,
)
from fedattn.rest.answers import QueryAnswer, Retried
from fedattn.rest.events import QueryEvent, QueuedEvent, SessionEvent, TokenEvent
from gateway.asked_query import AskedQuery

LEAST_TIME_S = 1.0
"""With less of its deadline left a query is not put again."""

log = structlog.get_logger(__name__)


class Attempts:
    """The events of one query, read once, in order, by one reader; closing it closes the query.

    A second try is worth it if the first failed for nodes that were lost. There is none once the
    client had a token, as it would get another answer, nor once a person's approval was spent.

    Args:
        query: in the line already.
        retries: whether it may be put again.
        moves: whether it may go to another publisher; else a lost publisher is the end.
    """

    def __init__(self, query: AskedQuery, *, retries: bool, moves: bool) -> None:
        self._query, self._retries, self._moves = query, retries, moves
        self._retried: Retried | None = None
        self._events = self._read()
        self._first: QueryEvent | None = None

    @property
    def queued(self) -> QueuedEvent | None:
        """Where it stands in the line, if it waits."""
        return self._query.queued

    async def wait_started(self) -> None:
        """Wait for the first event, so that a failure before it is a plain error; raises it."""
        self._first = await anext(self._events)

    async def events(self) -> AsyncIterator[QueryEvent]:
        """What happens, up to and including the answer.

        Raises:
            NodeBusyError: it got no place in time.
            FedAttnError: as sent by the publisher, or naming it if it is lost.
        """
        if self._first is not None:
            yield self._first
        async for event in self._events:
            yield event

    async def answer(self) -> QueryAnswer:
        """The answer, events before it left out; raises as `events`."""
        async for event in self.events():
            if isinstance(event, QueryAnswer):
                return event
        raise AssertionError("events end with the answer")

    def close(self) -> None:
        """Leave the line, or end what still runs."""
        self._query.close()

    async def _read(self) -> AsyncIterator[QueryEvent]:
        try:
            async for event in self._try_events():
                yield event
            return
        except FedAttnError as error:
            first, retried = error, self._second_try(error)
        self._retries, self._retried = False, retried
        async for event in self._again(first, retried):
            yield event

    async def _try_events(self) -> AsyncIterator[QueryEvent]:
        """Events of the current try, which ends all others once it must be the last."""
        async for event in self._query.events():
            match event:
                case TokenEvent() | SessionEvent(spends_approval=True):
                    self._retries = False
                case QueryAnswer():
                    event.retried = self._retried
            yield event

    def _second_try(self, error: FedAttnError) -> Retried:
        """What is told of a second try; raises what the first failed with if there is none."""
        if not isinstance(error, UnavailableError) or not self._may_retry(error):
            raise error
        return Retried(without=list(error.lost), code=error.code, detail=str(error))

    async def _again(self, error: FedAttnError, retried: Retried) -> AsyncIterator[QueryEvent]:
        """The second try, told of once it has its first event."""
        try:
            await self._query.ask_again(retried.without)
        except FedAttnError:  # nobody else can do it
            raise error from None
        log.info("query_retried", code=error.code, without=retried.without)
        has_begun = False
        try:
            async for event in self._try_events():
                if not has_begun:
                    has_begun = True
                    yield retried
                yield event
        except FedAttnError as second:
            if not has_begun and isinstance(second, NodeBusyError | RateLimitedError):
                raise error from None  # those who could do it are busy, and it may not wait
            raise _both(second, retried) from error

    def _may_retry(self, error: UnavailableError) -> bool:
        if not self._retries or not error.lost or self._query.left_s < LEAST_TIME_S:
            return False
        is_required = set(error.lost) & self._query.required
        if isinstance(error, PublisherUnavailableError):
            return self._moves and not is_required
        return isinstance(error, NotEnoughParticipantsError) and not is_required


def _both(second: FedAttnError, retried: Retried) -> FedAttnError:
    """The second error, which counts now, and that it was the second."""
    names = ", ".join(retried.without)
    told = copy(second)
    told.args = (f"{second} (in a second try without {names}; the first: {retried.detail})",)
    return told
