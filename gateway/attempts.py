"""A query, put at most twice: once more without whoever was lost before its first token."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from typing import Self, TypeAlias

import structlog

from fedattn.core.errors import (
    FedAttnError,
    NotEnoughParticipantsError,
    PublisherUnavailableError,
    UnavailableError,
)
from fedattn.rest.answers import QueryAnswer, QueryEvent, Retried, SessionEvent, TokenEvent
from fedattn.wire.v1 import participant_pb2
from gateway.query_call import QueryCall
from gateway.report import event_from_wire

LEAST_TIME_S = 1.0
"""With less of its deadline left a query is not put again."""

Start: TypeAlias = Callable[[participant_pb2.QueryRequest], Awaitable[QueryCall]]
"""Sends a query to a publisher that is none of the nodes it is to go without."""

log = structlog.get_logger(__name__)


class Attempts:
    """The events of one query, read once, in order, by one reader.

    A second try is worth it if the first failed for nodes that were lost. There is none once the
    client had a token, as it would get another answer, nor once a person's approval was spent.

    Args:
        start: sends it.
        request: what is asked.
        retries: whether it may be put again.
        moves: whether it may go to another publisher; else a lost publisher is the end.
        clock: seconds since some moment.
    """

    def __init__(
        self,
        start: Start,
        request: participant_pb2.QueryRequest,
        *,
        retries: bool,
        moves: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start, self._request = start, request
        self._retries, self._moves, self._clock = retries, moves, clock
        self._begun = clock()
        self._call: QueryCall | None = None
        self._retried: Retried | None = None
        self._events = self._read()
        self._first: QueryEvent | None = None

    async def begin(self) -> Self:
        """Send it.

        Raises:
            FedAttnError: it cannot be sent.
        """
        try:
            self._call = await self._start(self._request)
        except FedAttnError as error:
            await self._try_again(error)
        return self

    async def wait_started(self) -> None:
        """Wait for the first event, so that a failure before it is a plain error; raises it."""
        self._first = await anext(self._events)

    async def events(self) -> AsyncIterator[QueryEvent]:
        """What happens, up to and including the answer.

        Raises:
            FedAttnError: as sent by the publisher, or naming it if it is lost.
        """
        if self._first is not None:
            yield self._first
        async for event in self._events:
            yield event

    async def answer(self) -> QueryAnswer:
        """The answer, events before it left out."""
        async for event in self.events():
            if isinstance(event, QueryAnswer):
                return event
        raise AssertionError("events end with the answer")

    def close(self) -> None:
        """End what still runs."""
        if self._call is not None:
            self._call.close()

    async def _read(self) -> AsyncIterator[QueryEvent]:
        if self._retried is None:
            try:
                async for event in self._call_events():
                    yield event
                return
            except FedAttnError as error:
                await self._try_again(error)
        assert self._retried is not None
        yield self._retried
        try:
            async for event in self._call_events():
                yield event
        except FedAttnError as error:
            raise self._failed_twice(error) from error

    async def _call_events(self) -> AsyncIterator[QueryEvent]:
        """Events of the current try, which ends all others once it must be the last."""
        assert self._call is not None, "events follow begin()"
        async for happening in self._call.events():
            match event := event_from_wire(happening):
                case TokenEvent() | SessionEvent(spends_approval=True):
                    self._retries = False
                case QueryAnswer():
                    event.retried = self._retried
            yield event

    async def _try_again(self, error: FedAttnError) -> None:
        """Begin the second try, up to its first event; or raise what the first failed with."""
        left_s = self._request.options.deadline_s - (self._clock() - self._begun)
        if not isinstance(error, UnavailableError) or not self._may_retry(error, left_s):
            raise error
        self._retries = False
        self.close()
        self._retried = Retried(without=list(error.lost), code=error.code, detail=str(error))
        again = participant_pb2.QueryRequest()
        again.CopyFrom(self._request)
        again.options.deadline_s = left_s
        again.options.without.extend(error.lost)
        log.info("query_retried", code=error.code, without=error.lost)
        try:
            self._call = await self._start(again)
        except FedAttnError:  # nobody else can do it
            raise error from None
        with ExitStack() as unless_started:
            unless_started.callback(self.close)
            try:
                await self._call.wait_started()
            except FedAttnError as second:
                raise self._failed_twice(second) from error
            unless_started.pop_all()

    def _may_retry(self, error: UnavailableError, left_s: float) -> bool:
        if not self._retries or not error.lost or left_s < LEAST_TIME_S:
            return False
        is_required = set(error.lost) & set(self._request.options.require)
        if isinstance(error, PublisherUnavailableError):
            return self._moves and not is_required
        return isinstance(error, NotEnoughParticipantsError) and not is_required

    def _failed_twice(self, second: FedAttnError) -> FedAttnError:
        """The second error, which counts now, and that it was the second."""
        assert self._retried is not None
        names = ", ".join(self._retried.without)
        told = f"{second} (in a second try without {names}; the first: {self._retried.detail})"
        return type(second)(told)
