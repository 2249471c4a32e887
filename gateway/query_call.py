"""One query running at a publisher."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import grpc
import structlog

from fedattn.core.errors import (
    AggregatorUnavailableError,
    FedAttnError,
    GatewayUnavailableError,
    PublisherUnavailableError,
    SessionAbortedError,
)
from fedattn.wire.protocol import SILENCE_S
from fedattn.wire.status import raise_if_cancelled
from fedattn.wire.v1 import participant_pb2, session_pb2
from gateway.metrics import GatewayMetrics
from gateway.report import row_bytes_of
from gateway.stillness import Stillness
from gateway.way import Way

END_TIMEOUT_S = 0.5
"""Longest wait, once the result is here, for the publisher to say that this was all."""

QueryEvent = participant_pb2.QueryEvent

log = structlog.get_logger(__name__)


class QueryCall:
    """The events of one query, read once, in order, by one reader.

    Closing it cancels the query at the publisher if it still runs.
    """

    def __init__(
        self,
        rpc: grpc.aio.UnaryStreamCall[participant_pb2.QueryRequest, QueryEvent],
        publisher: Way,
        on_close: Callable[["QueryCall"], None],
        metrics: GatewayMetrics,
    ) -> None:
        self._rpc = rpc
        self._publisher = publisher
        self._on_close = on_close
        self._metrics = metrics
        self._begun = time.monotonic()
        self._session_id: str | None = None
        self._planned_bytes = 0
        self._outcome = "cancelled"
        self._result: participant_pb2.QueryResult | None = None
        self._first: QueryEvent | None = None
        self._is_closed = False
        self._stillness = Stillness()

    @property
    def kv_bytes(self) -> int:
        """Bytes of rows that all nodes sent, as the report says; without one as planned."""
        if self._result is None:  # else who leaves early would move rows for nothing
            return self._planned_bytes
        return kv_bytes_of(self._result.report)

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

    @property
    def is_answered(self) -> bool:
        """Whether its result has come."""
        return self._result is not None

    def withdraw(self) -> None:
        """End a call that was refused, and is made again: nobody counts it."""
        if not self._is_closed:
            self._is_closed = True
            self._rpc.cancel()
            self._on_close(self)

    def close(self) -> None:
        """Cancel what still runs, give the place free, and count how it ended; once."""
        if self._is_closed:
            return
        self._is_closed = True
        self._rpc.cancel()
        self._on_close(self)
        seconds = time.monotonic() - self._begun
        if self._result is None:
            self._metrics.end(self._outcome)
        else:
            self._metrics.answer(self._result, seconds)
        self._log(seconds)

    def _log(self, seconds: float) -> None:
        """One entry a query; numbers and ids, no text."""
        numbers = {}
        if self._result is not None:
            numbers = {"tokens": self._result.num_tokens, "kv_bytes": self.kv_bytes}
        log.info(
            "query_ended",
            session=self._session_id,
            publisher=self._publisher.node_id,
            outcome=self._outcome,
            seconds=round(seconds, 3),
            **numbers,
        )

    async def _read(self) -> QueryEvent:
        event = await self._next()
        while isinstance(event, QueryEvent) and event.HasField("alive"):
            event = await self._next()
        if not isinstance(event, QueryEvent):
            raise_if_cancelled()
            raise self._note(
                SessionAbortedError("the publisher ended the query without a result; ask again")
            )
        if event.HasField("opened"):
            self._session_id = event.opened.terms.session_id
            self._planned_bytes = planned_bytes_of(event.opened.terms)
        if event.HasField("result"):
            self._result, self._outcome = event.result, "answered"
            await self._wait_end()
            self.close()  # whoever reads slowly from here on holds no place
        return event

    async def _next(self) -> object:
        """The next event, or the end; a publisher that gives no sign of life is lost."""
        try:
            event = await self._stillness.wait(self._rpc.read(), SILENCE_S)
        except TimeoutError:
            raise self._note(await self._publisher.silent()) from None
        except grpc.aio.AioRpcError as error:
            raise self._note(await self._why_ended(error)) from error
        self._stillness.seconds = 0.0
        return event

    async def _why_ended(self, error: grpc.aio.AioRpcError) -> FedAttnError:
        """Who is to blame for a call that broke: this gateway, if it was not there itself."""
        found = await self._publisher.error_of(error)
        still_s = self._stillness.seconds
        is_lost = isinstance(found, PublisherUnavailableError | AggregatorUnavailableError)
        if not still_s or not is_lost:
            return found
        return GatewayUnavailableError(
            f"the gateway stood still for {still_s:.0f} s, and what it had asked was given up "
            f"meanwhile; ask again, and look whether its process was stopped"
        )

    async def _wait_end(self) -> None:
        """Let the publisher end by itself: one that is cancelled now counts no answer."""
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._rpc.read()
        except (TimeoutError, grpc.aio.AioRpcError):
            pass  # the answer is here, whatever comes after it

    def _note(self, error: FedAttnError) -> FedAttnError:
        self._outcome = error.code
        return error


def planned_bytes_of(terms: session_pb2.SessionTerms) -> int:
    """Bytes of rows that contributors send at most, at 2 bytes a number and none selected."""
    num_rows = 0
    for member in terms.members:
        others = (other.sync_layers for other in terms.members if other is not member)
        num_layers = len(set[int]().union(*others))
        is_asked = member.role == session_pb2.ROLE_CONTRIBUTOR and not member.is_cached_by_publisher
        num_rows += is_asked * num_layers * (member.span_stop - member.span_start)
    return row_bytes_of(terms) * num_rows


def kv_bytes_of(report: session_pb2.SessionReport) -> int:
    """Bytes of rows that all nodes sent."""
    return sum(layer.up for member in report.members for layer in member.layers)
