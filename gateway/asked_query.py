"""One query from when it is asked to its end."""

from collections.abc import AsyncIterator, Awaitable, Callable

import structlog

from fedattn.core.errors import FedAttnError
from fedattn.rest.answers import QueryAnswer, QueryEvent, QueuedEvent
from gateway.metrics import GatewayMetrics
from gateway.query_call import QueryCall
from gateway.report import event_from_wire
from gateway.turn import Turn

log = structlog.get_logger(__name__)


class AskedQuery:
    """A query in the line, then at its publisher. Read once, in order, by one reader.

    Closing it leaves the line, or cancels the query at the publisher.

    Args:
        turn: its turn, which it leaves.
        send: sends it once it has a place; returns when it has started.
        metrics: counts how it ended, if it never started; else its call counts that.
    """

    def __init__(
        self,
        turn: Turn[QueryCall],
        send: Callable[[], Awaitable[QueryCall]],
        metrics: GatewayMetrics,
    ) -> None:
        self._turn, self._send, self._metrics = turn, send, metrics
        self._call: QueryCall | None = None
        self._outcome = "cancelled"
        self._is_closed = False
        self._happenings = self._happen()
        self._first: QueryEvent | None = None

    @property
    def queued(self) -> QueuedEvent | None:
        """Where it stands in the line, if it waits."""
        return self._turn.queued

    async def wait_started(self) -> None:
        """Wait for the first event, so that a failure before it is a plain error.

        Raises:
            FedAttnError: as `events`.
        """
        self._first = await anext(self._happenings)

    async def events(self) -> AsyncIterator[QueryEvent]:
        """What happens, up to and including the answer.

        Raises:
            NodeBusyError: it got no place in time.
            FedAttnError: as sent by the publisher, or naming it if it cannot be reached.
        """
        if self._first is not None:
            yield self._first
        async for event in self._happenings:
            yield event

    async def answer(self) -> QueryAnswer:
        """The answer, events before it left out; raises as `events`."""
        async for event in self.events():
            if isinstance(event, QueryAnswer):
                return event
        raise AssertionError("events end with the answer")

    def close(self) -> None:
        """Leave the line, or cancel what still runs; once."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._call is None:
            self._metrics.end(self._outcome)
            log.info("query_ended", publisher=self._turn.publisher, outcome=self._outcome)
        else:
            self._call.close()
        self._turn.leave()

    async def _happen(self) -> AsyncIterator[QueryEvent]:
        try:
            async for step in self._turn.take(self._send):
                if isinstance(step, QueuedEvent):
                    yield step
                else:
                    self._call = step
        except FedAttnError as error:
            self._outcome = error.code
            raise
        assert self._call is not None, "a turn ends with a call, or an error"
        self._metrics.waits.observe(self._turn.waited_s)
        async for event in self._call.events():
            yield event_from_wire(event)
