"""Connections of gateways to nodes that publish: bytes that the aggregator passes on.

With certificates they are TLS from end to end, and the aggregator reads none of them.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress

from fedattn.core.errors import (
    FedAttnError,
    InvalidRequestError,
    NodeBusyError,
    PolicyRefusedError,
    PublisherUnavailableError,
)
from fedattn.wire.protocol import MAX_TUNNEL_DATA, MAX_TUNNELS_OF_NODE
from fedattn.wire.security import CheckCaller
from fedattn.wire.streams import next_within
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.outbox import Outbox
from services.aggregator.registry import Node, NodeRegistry

_WAITING_BYTES = 2 * MAX_TUNNEL_DATA
"""Most bytes that wait for one end; then the other end is not read."""
_IDLE_S = 900.0
"""An end that sends or takes nothing for so long is gone: gRPC pings, or closes before."""


class Tunnel:
    """One connection, and what waits for each end of it.

    Attributes:
        node: the node at one end.
        token: by which that node answers.
        for_gateway: bytes of the node.
        for_node: bytes of the gateway.
        error: why it ended, if not because an end closed it.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.token = secrets.token_hex(16)
        self.for_gateway: Outbox[bytes] = Outbox(_WAITING_BYTES)
        self.for_node: Outbox[bytes] = Outbox(_WAITING_BYTES)
        self.error: FedAttnError | None = None
        self.is_answered = False

    def end(self, error: FedAttnError | None = None) -> None:
        """Let both ends take what waits for them, and no more."""
        self.error = self.error or error
        self.for_gateway.close()
        self.for_node.close()

    def answer(self) -> None:
        """The node has come: tell both ends that they may send."""
        self.is_answered = True
        self.for_gateway.push(b"")
        self.for_node.push(b"")

    def end_unanswered(self, within_s: float) -> None:
        """End it, if the node has not come."""
        if not self.is_answered:
            self.end(
                PublisherUnavailableError(
                    f"node {self.node.node_id} did not take the connection within {within_s:g} s; "
                    f"look at its log"
                )
            )


class Tunnels:
    """All connections that run. Lives on the event loop.

    Args:
        nodes: that are joined.
        most: connections at once.
        answer_within_s: how long a node has to take one.
    """

    def __init__(self, nodes: NodeRegistry, most: int, answer_within_s: float) -> None:
        self._nodes, self._most, self._answer_within_s = nodes, most, answer_within_s
        self._open: dict[str, Tunnel] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def serve_gateway(
        self, node_id: str, requests: AsyncIterator[pb.TunnelRequest]
    ) -> AsyncGenerator[pb.TunnelResponse, None]:
        """The gateway's end, from its first message on.

        Raises:
            FedAttnError: the node cannot be reached, or wants no queries.
        """
        tunnel = self._begin(node_id)
        within_s = self._answer_within_s
        late = asyncio.get_running_loop().call_later(within_s, tunnel.end_unanswered, within_s)
        try:
            async for response in _serve(tunnel, requests, tunnel.for_gateway, tunnel.for_node):
                yield response
        finally:
            late.cancel()
            del self._open[tunnel.token]

    async def serve_node(
        self, token: str, requests: AsyncIterator[pb.TunnelRequest], check_caller: CheckCaller
    ) -> AsyncGenerator[pb.TunnelResponse, None]:
        """The node's end, from its first message on.

        Raises:
            InvalidRequestError: there is no such connection, or it has been taken.
            IdentityMismatchError: the caller is not the node it is for.
        """
        tunnel = self._open.get(token)
        if tunnel is None or tunnel.is_answered:
            raise InvalidRequestError("no gateway waits for that; it has given up")
        check_caller(tunnel.node.node_id)
        tunnel.answer()
        async for response in _serve(tunnel, requests, tunnel.for_node, tunnel.for_gateway):
            yield response

    def leave(self, node: Node) -> None:
        """A node has left, and its connections end."""
        for tunnel in self._of(node):
            tunnel.end(PublisherUnavailableError(f"node {node.node_id} has left"))

    def close(self) -> None:
        """End all."""
        for tunnel in self._open.values():
            tunnel.end()

    def _of(self, node: Node) -> list[Tunnel]:
        return [tunnel for tunnel in self._open.values() if tunnel.node is node]

    def _begin(self, node_id: str) -> Tunnel:
        node = self._nodes.find(node_id)
        if node is None:
            raise PublisherUnavailableError(
                f"node {node_id[:64]!r} is not joined; start its participant"
            )
        if node.home is not None:
            raise PublisherUnavailableError(
                f"node {node_id} is joined at the aggregator at {node.home.address} by now; ask "
                f"again there"
            )
        if not node.join.publishes:
            raise PolicyRefusedError(
                f"node {node_id} takes no queries; its owner lets it with the setting `publish`"
            )
        self._check_room(node)
        tunnel = Tunnel(node)
        self._open[tunnel.token] = tunnel
        node.send(pb.ControlResponse(tunnel=pb.TunnelCall(token=tunnel.token)))
        return tunnel

    def _check_room(self, node: Node) -> None:
        held = Counter(tunnel.node.node_id for tunnel in self._open.values())
        if held[node.node_id] >= MAX_TUNNELS_OF_NODE:
            raise NodeBusyError(
                f"node {node.node_id} holds {MAX_TUNNELS_OF_NODE} connections of gateways, the "
                f"most of one node; try again when one of them has ended"
            )
        if len(self._open) >= self._most:
            raise NodeBusyError(
                f"this aggregator carries {self._most} connections of gateways, its limit; try "
                f"again later, or raise its setting max_tunnels"
            )


async def _serve(
    tunnel: Tunnel,
    requests: AsyncIterator[pb.TunnelRequest],
    inbox: Outbox[bytes],
    outbox: Outbox[bytes],
) -> AsyncGenerator[pb.TunnelResponse, None]:
    """Serve one end until either of them closes."""
    reader = asyncio.create_task(_read(tunnel, requests, outbox))
    try:
        while (data := await inbox.get()) is not None:
            yield pb.TunnelResponse(data=data)
        if tunnel.error is not None:
            raise tunnel.error
    finally:
        reader.cancel()
        tunnel.end()


async def _read(
    tunnel: Tunnel, requests: AsyncIterator[pb.TunnelRequest], outbox: Outbox[bytes]
) -> None:
    """Pass on what one end sends; nothing more is read while the other end has enough to take."""
    try:
        with suppress(TimeoutError):
            while (request := await next_within(requests, _IDLE_S)) is not None:
                size = len(request.data)
                if request.WhichOneof("body") != "data" or not 0 < size <= MAX_TUNNEL_DATA:
                    tunnel.end(
                        InvalidRequestError(
                            f"tunnel: expected 1 to {MAX_TUNNEL_DATA} bytes, got {size}"
                        )
                    )
                    return
                await outbox.put(request.data, size, _IDLE_S)
    finally:
        tunnel.end()
