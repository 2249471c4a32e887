"""One query running at a publisher."""

from collections.abc import AsyncIterator, Callable

import grpc

from fedattn.core.errors import PublisherUnavailableError, SessionAbortedError
from fedattn.wire.status import error_from_rpc
from fedattn.wire.v1 import participant_pb2

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
    ) -> None:
        self._rpc = rpc
        self._unreachable = unreachable
        self._on_close = on_close
        self._first: QueryEvent | None = None

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
        """Cancel what still runs, and give the place free."""
        self._rpc.cancel()
        self._on_close(self)

    async def _read(self) -> QueryEvent:
        try:
            event = await self._rpc.read()
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self._unreachable) from error
        if not isinstance(event, QueryEvent):
            raise SessionAbortedError("the publisher ended the query without a result; ask again")
        return event
