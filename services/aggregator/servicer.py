"""gRPC transport of the aggregator: reads messages, calls the handlers, writes messages."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from prometheus_client import CollectorRegistry

from fedattn.core.errors import InvalidRequestError
from fedattn.core.node_id import GATEWAY
from fedattn.runtime.audit import AuditLog
from fedattn.wire.exchange import read_requests
from fedattn.wire.security import CheckCaller, check_caller
from fedattn.wire.streams import next_within
from fedattn.wire.texts import cleaned
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import aggregator_pb2_grpc
from services.aggregator.federation import Alone, Federation
from services.aggregator.invitations import Invitations
from services.aggregator.listing import list_nodes
from services.aggregator.membership import Memberships
from services.aggregator.metrics import AggregatorMetrics, NodeCollector
from services.aggregator.opening import SessionOpener
from services.aggregator.record import SessionRecord
from services.aggregator.registry import NodeRegistry
from services.aggregator.roll import Roll
from services.aggregator.sessions import Sessions
from services.aggregator.settings import AggregatorSettings
from services.aggregator.standing import Standing
from services.aggregator.tunnels import Tunnels

_SILENT_BEATS = 1.5
"""Heartbeats that a node may miss and still be taken for alive."""


class AggregatorServicer(aggregator_pb2_grpc.AggregatorServiceServicer):
    """The aggregator's five calls.

    Args:
        settings: of the aggregator.
        registry: of its metrics; None for one of its own.
        audit: where sessions are written down; None for nowhere.
        federation: the other aggregators; None for none.
        clock: seconds since some moment; the event loop's own time must agree with it.
    """

    def __init__(
        self,
        settings: AggregatorSettings,
        registry: CollectorRegistry | None = None,
        audit: AuditLog | None = None,
        clock: Callable[[], float] = time.monotonic,
        federation: Federation | None = None,
    ) -> None:
        self._settings = settings
        self.federation = federation = federation or Alone()
        self._nodes = NodeRegistry(
            settings.max_nodes, _SILENT_BEATS * settings.heartbeat_interval_s, clock
        )
        numbers = registry or CollectorRegistry()
        numbers.register(NodeCollector(self._nodes))
        standing = Standing(
            2 * settings.max_nodes, settings.first_pause_s, settings.max_pause_s, clock
        )
        invitations = Invitations(
            standing, settings.invite_timeout_s, settings.margin_s, clock=clock
        )
        opener = SessionOpener(self._nodes, invitations, standing, settings)
        metrics, record = AggregatorMetrics(numbers), SessionRecord(audit)
        self.sessions = Sessions(
            self._nodes, opener, metrics, record, settings, federation=federation, clock=clock
        )
        self.tunnels = Tunnels(self._nodes, settings.max_tunnels, settings.invite_timeout_s)
        metrics.tunnels_open.set_function(lambda: len(self.tunnels))
        self.roll = Roll(self._nodes, invitations, self.sessions, federation)
        self._memberships = Memberships(self.roll, self.tunnels, settings.heartbeat_interval_s)

    async def Control(
        self, request_iterator: AsyncIterator[pb.ControlRequest], context: Any
    ) -> AsyncIterator[pb.ControlResponse]:
        """Membership of one node, for as long as its stream lives."""
        requests = cleaned(request_iterator)
        first = await next_within(requests, self._memberships.lease_s)
        if first is None or first.WhichOneof("body") != "join":
            raise InvalidRequestError("the first message on the control stream must be Join")
        check_caller(context, frozenset({first.join.node_id}))
        async with aclosing(self._memberships.serve(first.join, requests)) as commands:
            async for command in commands:
                yield command

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        """Nodes that are joined right now, for one of them or for a gateway."""
        if request.node_id:
            self._nodes.authenticate(request.node_id, request.node_token)
        check_caller(context, frozenset({request.node_id or GATEWAY}))
        return list_nodes(self._nodes, self.sessions.standing, self.federation, request)

    async def OpenSession(
        self, request: pb.OpenSessionRequest, context: Any
    ) -> pb.OpenSessionResponse:
        """Lay out a session and start its contributors."""
        return await self.sessions.open(request, _check_of(context))

    async def Exchange(  # type: ignore[override]  # as bytes
        self, request_iterator: AsyncIterator[bytes], context: Any
    ) -> AsyncIterator[bytes | pb.ExchangeResponse]:
        """Rows of one member in, rows of earlier spans out."""
        requests = read_requests(request_iterator)
        first = await next_within(requests, self._settings.invite_timeout_s)
        if not isinstance(first, pb.ExchangeRequest) or first.WhichOneof("body") != "hello":
            raise InvalidRequestError("the first message on the exchange stream must be Hello")
        relay = self.sessions.relay(first.hello, requests, _check_of(context))
        async with aclosing(relay) as responses:
            async for response in responses:
                yield response

    async def Tunnel(
        self, request_iterator: AsyncIterator[pb.TunnelRequest], context: Any
    ) -> AsyncIterator[pb.TunnelResponse]:
        """One end of a gateway's connection to a node that publishes."""
        requests = cleaned(request_iterator)
        first = await next_within(requests, self._settings.invite_timeout_s)
        if first is None:
            raise InvalidRequestError("a tunnel must begin with open or answer, not with silence")
        match first.WhichOneof("body"):
            case "open":
                check_caller(context, frozenset({GATEWAY}))
                end = self.tunnels.serve_gateway(first.open.node_id, requests)
            case "answer":
                end = self.tunnels.serve_node(first.answer.token, requests, _check_of(context))
            case _:
                raise InvalidRequestError("the first message on a tunnel must be open or answer")
        async with aclosing(end) as responses:
            async for response in responses:
                yield response

    async def drain(self) -> None:
        """Open no more sessions, and wait for those that run."""
        await self.sessions.drain()

    def close(self) -> None:
        """End what still runs, and every membership."""
        self.sessions.close()
        self.tunnels.close()
        for node in self._nodes.here():
            node.outbox.close()


def _check_of(context: Any) -> CheckCaller:
    """Holds the caller of one call against the node it says it is."""
    return lambda node_id: check_caller(context, frozenset({node_id}))
