"""One query from when it is asked to its end."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import structlog

from fedattn.core.errors import FedAttnError
from fedattn.rest.events import QueryEvent, QueuedEvent
from fedattn.wire.v1 import participant_pb2
from gateway.metrics import GatewayMetrics
from gateway.query_call import QueryCall
from gateway.report import event_from_wire
from gateway.turn import Turn

log = structlog.get_logger(__name__)


class AskedQuery:
    """A query in the line, then at its publisher.

    Closing it leaves the line, or cancels the query at the publisher.

    Args:
        turn: its turn, which it leaves.
        request: what is asked.
        send: sends it once it has a place; returns when it has started.
        choose: the publisher of another try, which is none of some nodes.
        metrics: counts how it ended, if it never started; else its call counts that.
    """

    def __init__(
        self,
        turn: Turn[QueryCall],
        request: participant_pb2.QueryRequest,
        send: Callable[[participant_pb2.QueryRequest], Awaitable[QueryCall]],
        choose: Callable[[frozenset[str]], Awaitable[str]],
        metrics: GatewayMetrics,
    ) -> None:
        self._turn, self._request = turn, request
        self._send, self._choose, self._metrics = send, choose, metrics
        self._call: QueryCall | None = None
        self._outcome = "cancelled"
        self._is_closed = False

    @property
    def queued(self) -> QueuedEvent | None:
        """Where it stands in the line, if it waits."""
        return self._turn.queued

    @property
    def required(self) -> frozenset[str]:
        """Nodes without which there is no answer."""
        return frozenset(self._request.options.require)

    @property
    def left_s(self) -> float:
        """Seconds left of the deadline of a query that has a place."""
        return self._request.options.deadline_s - self._turn.spent_s - self._turn.held_s

    async def events(self) -> AsyncIterator[QueryEvent]:
        """What happens, up to and including the answer. Read once a try, by one reader.

        Raises:
            NodeBusyError: it got no place in time.
            FedAttnError: as sent by the publisher, or naming it if it cannot be reached.
        """
        try:
            async for step in self._turn.take(lambda: self._send(self._request)):
                if isinstance(step, QueuedEvent):
                    yield step
                else:
                    self._call = step
        except FedAttnError as error:
            self._outcome = error.code
            raise
        assert self._call is not None, "a turn ends with a call, or an error"
        if not self._request.options.without:  # another try is not another query
            self._metrics.waits.observe(self._turn.waited_s)
        async for event in self._call.events():
            yield event_from_wire(event)

    async def ask_again(self, without: Sequence[str]) -> None:
        """End what failed, and begin another try, whose events are read next.

        It keeps its place; if another publisher is asked, it is the next to get one there.

        Args:
            without: nodes that the try is to go without.

        Raises:
            FedAttnError: no other publisher takes it.
        """
        self._turn.move(await self._choose(frozenset(without)), self.left_s)
        self._end_try()
        self._call, self._outcome = None, "cancelled"
        self._request = _without(self._request, without)

    def close(self) -> None:
        """Leave the line, or cancel what still runs; once."""
        if not self._is_closed:
            self._is_closed = True
            self._end_try()
            self._turn.leave()

    def _end_try(self) -> None:
        if self._call is None:
            self._metrics.end(self._outcome)
            log.info("query_ended", publisher=self._turn.publisher, outcome=self._outcome)
        else:
            self._call.close()


def _without(
    request: participant_pb2.QueryRequest, lost: Sequence[str]
) -> participant_pb2.QueryRequest:
    again = participant_pb2.QueryRequest()
    again.CopyFrom(request)
    again.options.without.extend(lost)
    return again
