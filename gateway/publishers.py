"""The gRPC side of the gateway: ways to the nodes that publish, and the queries running there."""

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import grpc
from prometheus_client import CollectorRegistry

from fedattn.core.errors import FedAttnError
from fedattn.runtime.tracing import trace_metadata
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.security import OwnCertificates
from fedattn.wire.status import error_from_rpc
from fedattn.wire.v1 import aggregator_pb2, participant_pb2
from gateway.callers import Caller
from gateway.directory import FRESH_S, Directory, check_allowed
from gateway.metrics import GatewayMetrics
from gateway.places import Places
from gateway.query_call import QueryCall, kv_bytes_of
from gateway.quotas import Quotas
from gateway.way import Way
from gateway.ways import Ways

DEADLINE_MARGIN_S = 5.0
"""The publisher ends a query at its deadline and says why; this is its time to say it."""


class Publishers:
    """The nodes that publish, as far as the aggregator knows; ways are open inside `async with`.

    Args:
        aggregators: that may be asked; closed with this.
        max_concurrent_queries: at all of them together.
        default: the publisher of queries that name none; None for the first by id.
        certificates: of the gateway; None for plaintext.
        registry: takes the gateway's numbers.
    """

    def __init__(
        self,
        aggregators: Aggregators,
        max_concurrent_queries: int,
        default: str | None = None,
        certificates: OwnCertificates | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._aggregators, self._default, self._certificates = aggregators, default, certificates
        self._places = Places(max_concurrent_queries)
        self._quotas = Quotas()
        self._running: set[QueryCall] = set()
        self._metrics = GatewayMetrics(registry)
        self._metrics.running.set_function(lambda: self._places.num_taken)

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

    async def start_query(
        self, caller: Caller, publisher: str | None, request: participant_pb2.QueryRequest
    ) -> QueryCall:
        """Send a query to a publisher. The caller closes the call.

        Args:
            caller: who asks.
            publisher: None for the default, or the first that the caller may ask.
            request: what is asked.

        Raises:
            NotAllowedError: the caller may not ask there.
            UnknownParticipantError: it is not joined.
            PolicyRefusedError: its owner lets no gateway ask through it.
            RateLimitedError: the caller has had its share.
            UnavailableError: it cannot be reached, or too many queries are running.
        """
        way, give_free = await self._admit(caller, publisher)

        def end(call: QueryCall) -> None:
            self._running.discard(call)
            self._quotas.add_bytes(caller, call.kv_bytes)
            give_free()

        timeout_s = request.options.deadline_s + DEADLINE_MARGIN_S
        rpc = way.stub.Query(request, timeout=timeout_s, metadata=trace_metadata())
        call = QueryCall(rpc, way, end, self._metrics)
        self._running.add(call)
        return call

    async def _admit(self, caller: Caller, publisher: str | None) -> tuple[Way, Callable[[], None]]:
        """The way, and what gives the place free that was taken. Counts refusals."""
        try:
            check_allowed(caller, publisher)
            self._quotas.count_request(caller)
            node_id = await self._directory.choose(caller, publisher)
            aggregator = self._directory.aggregator_of(node_id)
            way = await self._ways.take(node_id, aggregator, self.node_ids)
            with ExitStack() as held:
                held.callback(way.give_back)
                await way.connect()
                held.callback(self._places.take(caller, node_id, len(self.node_ids)))
                return way, held.pop_all().close
        except FedAttnError as error:
            self._metrics.end(error.code)
            raise

    async def warm(
        self, caller: Caller, publisher: str | None, request: participant_pb2.QueryRequest
    ) -> participant_pb2.WarmResponse:
        """Let a publisher fetch rows ahead of any question; takes a place.

        Raises:
            FedAttnError: as sent by the publisher, or it cannot be asked.
        """
        way, give_free = await self._admit(caller, publisher)
        try:
            timeout_s = request.options.deadline_s + DEADLINE_MARGIN_S
            response = await way.stub.Warm(request, timeout=timeout_s, metadata=trace_metadata())
            self._quotas.add_bytes(caller, kv_bytes_of(response.report))
            return response
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, way.unreachable()) from error
        finally:
            give_free()

    async def list_nodes(self, caller: Caller) -> aggregator_pb2.ListNodesResponse:
        """All nodes joined at the aggregator.

        Raises:
            RateLimitedError: the caller has had its share.
            FedAttnError: the aggregator cannot say.
        """
        self._quotas.count_listing(caller)
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
