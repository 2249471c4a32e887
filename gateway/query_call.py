"""One query running at a publisher."""

import time
from collections.abc import AsyncIterator, Callable

import grpc

from fedattn.core.errors import FedAttnError, PublisherUnavailableError, SessionAbortedError
from fedattn.wire.status import error_from_rpc, raise_if_cancelled
from fedattn.wire.v1 import participant_pb2
from gateway.metrics import GatewayMetrics

QueryEvent = participant_pb2.QueryEvent


class QueryCall:
    """The events of one query, read once, in order, by one reader.

    Closing it cancels the query at the publisher if it still runs.
    """

    def __init__(
        self,
        rpc: grpc.aio.UnaryStreamCall[participant_pb2.QueryRequest, QueryEvent],
        unreachable: PublisherUnavailableError,
        on_close: Callable[["QueryCall"], None],
        metrics: GatewayMetrics,
    ) -> None:
        self._rpc = rpc
        self._unreachable = unreachable
        self._on_close = on_close
        self._metrics = metrics
        self._begun = time.monotonic()
        self._failure = "cancelled"
        self._result: participant_pb2.QueryResult | None = None
        self._first: QueryEvent | None = None
        self._is_closed = False

    async def wait_started(self) -> None:
        """Wait for the first event, so that a failure before it is a plain error.

        Raises:
            FedAttnError: as sent by the publisher, or naming it if it cannot be reached.
        """
        self._first = await self._read()

    async def events(self) -> AsyncIterator[QueryEvent]:
        """What happens, up to and including the result.

        Raises:
            FedAttnError: as `wait_started`.
            SessionAbortedError: the publisher ended without a result.
        """
        event = await self._read() if self._first is None else self._first
        while not event.HasField("result"):
            yield event
            event = await self._read()
        yield event

    async def result(self) -> participant_pb2.QueryResult:
        """The result, events before it left out."""
        async for event in self.events():
            if event.HasField("result"):
                return event.result
        raise AssertionError("events end with the result")

    def close(self) -> None:
        """Cancel what still runs, give the place free, and count how it ended; once."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._result is None:
            self._metrics.end(self._failure)
        else:
            self._metrics.answer(self._result, time.monotonic() - self._begun)
        self._rpc.cancel()
        self._on_close(self)

    async def _read(self) -> QueryEvent:
        try:
            event = await self._rpc.read()
        except grpc.aio.AioRpcError as error:
            raise self._note(error_from_rpc(error, self._unreachable)) from error
        if not isinstance(event, QueryEvent):
            raise_if_cancelled()
            raise self._note(
                SessionAbortedError("the publisher ended the query without a result; ask again")
            )
        if event.HasField("result"):
            self._result = event.result
        return event

    def _note(self, error: FedAttnError) -> FedAttnError:
        self._failure = error.code
        return error
