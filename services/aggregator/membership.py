"""The control stream of one node: joined for as long as it lives."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import structlog

from fedattn.core.errors import InvalidRequestError
from fedattn.wire.streams import next_within
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.registry import Node
from services.aggregator.roll import Roll
from services.aggregator.tunnels import Tunnels

log = structlog.get_logger(__name__)

_MISSED_HEARTBEATS = 3
"""So many in a row end a membership."""


class Memberships:
    """Admits nodes and passes on what they say.

    Attributes:
        lease_s: silence that ends a membership, seconds.
    """

    def __init__(self, roll: Roll, tunnels: Tunnels, heartbeat_interval_s: float) -> None:
        self._roll, self._tunnels = roll, tunnels
        self._heartbeat_interval_s = heartbeat_interval_s
        self.lease_s = _MISSED_HEARTBEATS * heartbeat_interval_s

    async def serve(
        self, join: pb.Join, requests: AsyncIterator[pb.ControlRequest]
    ) -> AsyncGenerator[pb.ControlResponse, None]:
        """Commands for one node until it leaves, falls silent or is told to go.

        Raises:
            FedAttnError: it is not admitted.
        """
        node, token = await self._roll.join(join)
        reader = asyncio.create_task(self._read(node, requests))
        try:
            log.info("node_joined", node=node.node_id, model=node.fingerprint[:12])
            welcome = pb.Welcome(heartbeat_interval_s=self._heartbeat_interval_s, node_token=token)
            yield pb.ControlResponse(welcome=welcome)
            while (message := await node.outbox.get()) is not None:
                yield message
        finally:
            reader.cancel()
            log.info("node_left", node=node.node_id)
            self._roll.leave(node)
            self._tunnels.leave(node)

    async def _read(self, node: Node, requests: AsyncIterator[pb.ControlRequest]) -> None:
        """Take heartbeats and replies until the stream ends or falls silent."""
        try:
            while (request := await next_within(requests, self.lease_s)) is not None:
                match request.WhichOneof("body"):
                    case "heartbeat":
                        node.on_heartbeat(request.heartbeat)
                        self._roll.heard(node)
                    case "invite_reply":
                        self._roll.take_reply(node, request.invite_reply)
                    case other:
                        log.warning("unexpected_message", node=node.node_id, kind=other)
                        return
        except InvalidRequestError as error:
            log.warning("bad_message", node=node.node_id, error=str(error))
        finally:
            node.outbox.discard()
