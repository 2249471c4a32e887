"""The gRPC side of the gateway: one channel to each publisher, and the queries running there."""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from fedattn.core.errors import (
    FedAttnError,
    NotAllowedError,
    PublisherUnavailableError,
    UnknownParticipantError,
)
from fedattn.core.node_id import check_node_id
from fedattn.runtime.tracing import trace_metadata
from fedattn.wire.channel import PeerChannel
from fedattn.wire.security import OwnCertificates
from fedattn.wire.status import error_from_rpc, raise_if_cancelled
from fedattn.wire.stubs import ParticipantStub
from fedattn.wire.v1 import participant_pb2
from gateway.callers import Caller
from gateway.metrics import GatewayMetrics
from gateway.places import Places
from gateway.query_call import QueryCall, kv_bytes_of
from gateway.quotas import Quotas
from gateway.settings import PublisherAddress

DEADLINE_MARGIN_S = 5.0
"""The publisher ends a query at its deadline and says why; this is its time to say it."""
CONNECT_TIMEOUT_S = 2.0
LIST_TIMEOUT_S = 5.0
HEALTH_TIMEOUT_S = 2.0

_SERVICE = participant_pb2.DESCRIPTOR.services_by_name["ParticipantService"].full_name


class Publishers:
    """The configured publishers; channels are open inside `async with`."""

    def __init__(
        self,
        addresses: Sequence[PublisherAddress],
        max_concurrent_queries: int,
        certificates: OwnCertificates | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._addresses = {address.node_id: address for address in addresses}
        self._places = Places(max_concurrent_queries, len(self._addresses))
        self._quotas = Quotas()
        self._certificates = certificates
        self._running: set[QueryCall] = set()
        self._metrics = GatewayMetrics(registry)
        self._metrics.running.set_function(lambda: self._places.num_taken)
        self._channels: dict[str, PeerChannel] = {}

    async def __aenter__(self) -> Self:
        for node_id, address in self._addresses.items():
            self._channels[node_id] = PeerChannel(address.endpoint, self._certificates, node_id)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for call in tuple(self._running):
            call.close()
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    @property
    def node_ids(self) -> tuple[str, ...]:
        return tuple(self._addresses)

    async def start_query(
        self, caller: Caller, publisher: str | None, request: participant_pb2.QueryRequest
    ) -> QueryCall:
        """Send a query to a publisher. The caller closes the call.

        Args:
            caller: who asks.
            publisher: None for the first that the caller may ask.
            request: what is asked.

        Raises:
            NotAllowedError: the caller may not ask there.
            UnknownParticipantError: it is not configured here.
            RateLimitedError: the caller has had its share.
            PublisherUnavailableError: it cannot be reached.
            NodeBusyError: too many queries are running.
        """
        address, give_free = await self._admit(caller, publisher)

        def end(call: QueryCall) -> None:
            self._running.discard(call)
            self._quotas.add_bytes(caller, call.kv_bytes)
            give_free()

        stub = self._stub(address)
        timeout_s = request.options.deadline_s + DEADLINE_MARGIN_S
        rpc = stub.Query(request, timeout=timeout_s, metadata=trace_metadata())
        call = QueryCall(rpc, address, end, self._metrics)
        self._running.add(call)
        return call

    async def _admit(
        self, caller: Caller, publisher: str | None
    ) -> tuple[PublisherAddress, Callable[[], None]]:
        """The publisher, and what gives the place free that was taken. Counts refusals."""
        try:
            address = self._find(caller, publisher)
            self._quotas.count_request(caller)
            await self._connect(address)
            return address, self._places.take(caller, address.node_id)
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
        address, give_free = await self._admit(caller, publisher)
        stub = self._stub(address)
        try:
            timeout_s = request.options.deadline_s + DEADLINE_MARGIN_S
            response = await stub.Warm(request, timeout=timeout_s, metadata=trace_metadata())
            self._quotas.add_bytes(caller, kv_bytes_of(response.report))
            return response
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, address.unreachable()) from error
        finally:
            give_free()

    async def list_nodes(self, caller: Caller) -> participant_pb2.ListParticipantsResponse:
        """All nodes joined at the aggregator, from the first publisher that answers.

        Raises:
            RateLimitedError: the caller has had its share.
            PublisherUnavailableError: none answers; names each and why.
        """
        self._quotas.count_request(caller)
        failures: list[str] = []
        for address in self._addresses.values():
            try:
                return await self._list_nodes_at(address)
            except FedAttnError as error:
                failures.append(f"{address.node_id}: {error}")
        raise PublisherUnavailableError(
            f"no publisher can say who is joined: {'; '.join(failures)}"
        )

    async def check_ready(self) -> None:
        """Return if a publisher is serving.

        Raises:
            PublisherUnavailableError: none is; names each.
        """
        checks = [self._is_serving(address) for address in self._addresses.values()]
        if not any(await asyncio.gather(*checks)):
            names = ", ".join(str(address) for address in self._addresses.values())
            raise PublisherUnavailableError(
                f"no publisher is serving, asked {names}; start a participant there"
            )

    def _stub(self, address: PublisherAddress) -> ParticipantStub:
        return ParticipantStub(self._channels[address.node_id].current())

    def _find(self, caller: Caller, publisher: str | None) -> PublisherAddress:
        if publisher is None:
            publisher = next(filter(caller.may_publish, self._addresses), None)
        if publisher is None or not caller.may_publish(check_node_id(publisher)):
            raise NotAllowedError(
                f"{caller.subject!r} may not ask through {publisher or 'any publisher here'}; ask "
                f"whoever runs the gateway to allow it"
            )
        if publisher not in self._addresses:
            raise UnknownParticipantError(
                f"publisher {publisher!r} is not configured at this gateway; known are "
                f"{', '.join(self._addresses)}"
            )
        return self._addresses[publisher]

    async def _connect(self, address: PublisherAddress) -> None:
        """Wait for the channel: one that failed before may rest between two attempts."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._channels[address.node_id].current().channel_ready()
        except TimeoutError:
            raise address.unreachable() from None

    async def _list_nodes_at(
        self, address: PublisherAddress
    ) -> participant_pb2.ListParticipantsResponse:
        stub = self._stub(address)
        request = participant_pb2.ListParticipantsRequest()
        try:
            return await stub.ListParticipants(
                request, timeout=LIST_TIMEOUT_S, metadata=trace_metadata()
            )
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, address.unreachable()) from error

    async def _is_serving(self, address: PublisherAddress) -> bool:
        stub = health_pb2_grpc.HealthStub(self._channels[address.node_id].current())
        request = health_pb2.HealthCheckRequest(service=_SERVICE)
        try:
            answer = await stub.Check(request, timeout=HEALTH_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            raise_if_cancelled()
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
