"""The control stream of one node: joined for as long as it lives."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import structlog

from fedattn.core.errors import InvalidRequestError
from fedattn.wire.peer_gate import why_expelled
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.departures import GOODBYE
from services.aggregator.registry import Node
from services.aggregator.roll import Roll
from services.aggregator.tunnels import Tunnels

log = structlog.get_logger(__name__)

_MISSED_HEARTBEATS = 3
"""So many in a row end a membership."""
_LAST_WORDS_S = 5.0
"""Time for a node whose membership has ended to read the end of its stream."""


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
        stream = asyncio.current_task()
        assert stream is not None
        reader = asyncio.create_task(self._read(node, requests, stream))
        try:
            log.info("node_joined", node=node.node_id, model=node.fingerprint[:12])
            welcome = pb.Welcome(heartbeat_interval_s=self._heartbeat_interval_s, node_token=token)
            yield pb.ControlResponse(welcome=welcome)
            while (message := await node.outbox.get()) is not None:
                yield message
        finally:
            reader.cancel()
            self._end(node)

    def _end(self, node: Node) -> None:
        """Say why a membership has ended to all that counted on the node, once."""
        self._roll.leave(node, str(why_expelled() or ""))
        self._tunnels.leave(node)

    async def _read(
        self,
        node: Node,
        requests: AsyncIterator[pb.ControlRequest],
        stream: asyncio.Task[object],
    ) -> None:
        """Take heartbeats and replies until the stream ends or falls silent.

        The membership ends then, also of a node that reads nothing, whose stream would stay.
        """
        try:
            while True:
                async with asyncio.timeout(self.lease_s):
                    request = await anext(requests)
                if not self._take(node, request):
                    return
        except StopAsyncIteration:
            pass  # `Roll.leave` looks why
        except TimeoutError:
            node.end(f"it fell silent: no heartbeat for {self.lease_s:g} s")
        except InvalidRequestError as error:
            log.warning("bad_message", node=node.node_id, error=str(error))
            node.end(f"what it said was refused: {error}")
        finally:
            node.end()
            self._end(node)
            asyncio.get_running_loop().call_later(_LAST_WORDS_S, stream.cancel)

    def _take(self, node: Node, request: pb.ControlRequest) -> bool:
        """Take one message; whether others may follow."""
        if not self._roll.hear(node):
            return False  # it is joined elsewhere by now
        match request.WhichOneof("body"):
            case "heartbeat":
                node.on_heartbeat(request.heartbeat)
                self._roll.announce(node)
            case "invite_reply":
                self._roll.take_reply(node, request.invite_reply)
            case "goodbye":
                node.end(GOODBYE)
                return False
            case other:
                raise InvalidRequestError(f"expected a heartbeat or a reply, got {other}")
        return True
