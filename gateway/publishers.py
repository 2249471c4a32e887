"""The gRPC side of the gateway: ways to the nodes that publish, and the queries running there."""

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self, TypeVar

import grpc
from prometheus_client import CollectorRegistry

from fedattn.core.errors import AggregatorUnavailableError, FedAttnError
from fedattn.runtime.tracing import trace_metadata
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.security import OwnCertificates
from fedattn.wire.v1 import aggregator_pb2, participant_pb2
from gateway.asked_query import AskedQuery
from gateway.callers import Caller
from gateway.directory import FRESH_S, Directory, check_allowed
from gateway.limits import QueryLimits
from gateway.line import Line
from gateway.metrics import GatewayMetrics
from gateway.places import Ask, Places
from gateway.query_call import QueryCall, kv_bytes_of
from gateway.quotas import Quotas
from gateway.turn import Turn
from gateway.waiting import Patience
from gateway.way import Way
from gateway.ways import Ways

DEADLINE_MARGIN_S = 5.0
"""The publisher ends a query at its deadline and says why; this is its time to say it."""
_LEAST_DEADLINE_S = 0.1

T = TypeVar("T")


class Publishers:
    """The nodes that publish, as far as the aggregator knows; ways are open inside `async with`.

    Args:
        aggregators: that may be asked; closed with this.
        limits: queries at all of them together.
        default: the publisher of queries that name none; None for the first by id.
        certificates: of the gateway; None for plaintext.
        registry: takes the gateway's numbers.

    Attributes:
        quotas: what callers have had.
    """

    def __init__(
        self,
        aggregators: Aggregators,
        limits: QueryLimits,
        default: str | None = None,
        certificates: OwnCertificates | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._aggregators, self._default, self._certificates = aggregators, default, certificates
        self._metrics = GatewayMetrics(registry)
        places = Places(limits, lambda: len(self.node_ids))
        self._line = Line(places, limits, self._metrics)
        self.quotas = Quotas()
        self._running: set[QueryCall] = set()
        self._metrics.running.set_function(lambda: places.num_taken)

    async def __aenter__(self) -> Self:
        self._directory = Directory(self._aggregators, self._default)
        self._ways = Ways(self._certificates)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for call in tuple(self._running):
            call.close()
        await self._ways.close()
        await self._aggregators.close()

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Nodes that took queries when last looked: the default first, the others by id."""
        return self._directory.publishers

    @property
    def may_choose(self) -> bool:
        """Whether queries that name no publisher may go to any; else the settings name one."""
        return self._default is None

    async def start_query(
        self,
        caller: Caller,
        publisher: str | None,
        request: participant_pb2.QueryRequest,
        patience: Patience,
    ) -> AskedQuery:
        """Put a query into the line for a publisher. The caller closes it.

        Args:
            caller: who asks.
            publisher: None for the default, or the first that the caller may ask.
            request: what is asked.
            patience: how long it may wait for a place.

        Raises:
            NotAllowedError: the caller may not ask there.
            UnknownParticipantError: it is not joined.
            PolicyRefusedError: its owner lets no gateway ask through it.
            RateLimitedError: the caller has had its share.
            UnavailableError: it cannot be reached, or would have to wait for too long.
        """
        turn: Turn[QueryCall] = await self._join(caller, publisher, request, patience)

        async def send(request: participant_pb2.QueryRequest) -> QueryCall:
            return await self._send(caller, turn, _within(request, turn))

        async def choose(without: frozenset[str]) -> str:
            return await self._directory.choose(caller, publisher, without)

        return AskedQuery(turn, request, send, choose, self._metrics)

    async def _join(
        self,
        caller: Caller,
        publisher: str | None,
        request: participant_pb2.QueryRequest,
        patience: Patience,
    ) -> Turn[T]:
        """A turn in the line. Counts refusals."""
        try:
            check_allowed(caller, publisher)
            self.quotas.count_request(caller)
            node_id = await self._directory.choose(caller, publisher)
            ask = Ask(
                caller=caller,
                publisher=node_id,
                subject=request.options.subject,
                is_background=patience.is_background,
            )
            return Turn(self._line, ask, patience.within(request.options.deadline_s))
        except FedAttnError as error:
            self._metrics.end(error.code)
            raise

    async def _send(
        self, caller: Caller, turn: Turn[QueryCall], request: participant_pb2.QueryRequest
    ) -> QueryCall:
        """Send a query that has its place; returns once it has started.

        Raises:
            FedAttnError: it has not; nothing of it runs any more.
        """
        return await self._follow(
            turn.publisher, lambda aggregator: self._start(caller, turn, request, aggregator)
        )

    async def _follow(self, node_id: str, attempt: Callable[[AggregatorClient], Awaitable[T]]) -> T:
        """What an attempt comes to by the aggregator of a node; if that was lost, by its next."""
        await self._directory.look(max_age_s=FRESH_S)  # it may have moved while the query waited
        aggregator = self._directory.aggregator_of(node_id)
        try:
            return await attempt(aggregator)
        except AggregatorUnavailableError:
            moved = await self._directory.moved(node_id, aggregator)
            if moved is None:
                raise
            return await attempt(moved)

    async def _start(
        self,
        caller: Caller,
        turn: Turn[QueryCall],
        request: participant_pb2.QueryRequest,
        aggregator: AggregatorClient,
    ) -> QueryCall:
        """Send a query by an aggregator.

        Raises:
            FedAttnError: it has not started; nothing of it runs any more.
        """
        way = await self._way(turn.publisher, aggregator)

        def end(call: QueryCall) -> None:
            self._running.discard(call)
            self.quotas.add_bytes(caller, call.kv_bytes)
            way.give_back()
            if call.is_answered:  # whoever reads slowly from here on holds no place
                turn.note_answered()
                turn.leave()

        timeout_s = request.options.deadline_s + DEADLINE_MARGIN_S
        rpc = way.stub.Query(request, timeout=timeout_s, metadata=trace_metadata())
        call = QueryCall(rpc, way, end, self._metrics)
        self._running.add(call)
        with ExitStack() as unless_started:
            unless_started.callback(call.withdraw)
            await call.wait_started()
            unless_started.pop_all()
        return call

    async def _way(self, node_id: str, aggregator: AggregatorClient) -> Way:
        way = await self._ways.take(node_id, aggregator, self.node_ids)
        with ExitStack() as unless_connected:
            unless_connected.callback(way.give_back)
            await way.connect()
            unless_connected.pop_all()
        return way

    async def warm(
        self,
        caller: Caller,
        publisher: str | None,
        request: participant_pb2.QueryRequest,
        patience: Patience,
    ) -> participant_pb2.WarmResponse:
        """Let a publisher fetch rows ahead of any question; waits as `start_query`.

        Raises:
            FedAttnError: as sent by the publisher, or it cannot be asked.
        """
        turn: Turn[participant_pb2.WarmResponse] = await self._join(
            caller, publisher, request, patience
        )

        async def send() -> participant_pb2.WarmResponse:
            within = _within(request, turn)
            return await self._follow(
                turn.publisher,
                lambda aggregator: self._warm(caller, turn.publisher, within, aggregator),
            )

        try:
            async for step in turn.take(send):
                if isinstance(step, participant_pb2.WarmResponse):
                    return step
            raise AssertionError("a turn ends with a response, or an error")
        finally:
            turn.leave()

    async def _warm(
        self,
        caller: Caller,
        node_id: str,
        request: participant_pb2.QueryRequest,
        aggregator: AggregatorClient,
    ) -> participant_pb2.WarmResponse:
        way = await self._way(node_id, aggregator)
        try:
            timeout_s = request.options.deadline_s + DEADLINE_MARGIN_S
            response = await way.stub.Warm(request, timeout=timeout_s, metadata=trace_metadata())
            self.quotas.add_bytes(caller, kv_bytes_of(response.report))
            return response
        except grpc.aio.AioRpcError as error:
            raise await way.error_of(error) from error
        finally:
            way.give_back()

    async def list_nodes(self, caller: Caller) -> aggregator_pb2.ListNodesResponse:
        """All nodes joined at the aggregator.

        Raises:
            RateLimitedError: the caller has had its share.
            FedAttnError: the aggregator cannot say.
        """
        self.quotas.count_listing(caller)
        return await self._directory.look()

    async def recent_nodes(self) -> aggregator_pb2.ListNodesResponse:
        """Nodes as of a moment ago; counts as no request, for what precedes one.

        Raises:
            FedAttnError: the aggregator cannot say.
        """
        return await self._directory.look(max_age_s=FRESH_S)

    async def check_ready(self) -> None:
        """Return if there is a node to publish through.

        Raises:
            FedAttnError: no node takes queries, or the aggregator cannot say.
        """
        await self._directory.check_ready()


def _within(request: participant_pb2.QueryRequest, turn: Turn[T]) -> participant_pb2.QueryRequest:
    """The request with the time that is left of its deadline."""
    if not turn.spent_s:
        return request
    left = participant_pb2.QueryRequest()
    left.CopyFrom(request)
    left.options.deadline_s = max(_LEAST_DEADLINE_S, request.options.deadline_s - turn.spent_s)
    return left
