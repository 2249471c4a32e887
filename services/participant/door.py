"""Where a node that publishes takes queries: behind connections that its aggregator carries."""

import asyncio

import structlog

from fedattn.core.address import SocketPath
from fedattn.core.errors import FedAttnError
from fedattn.core.node_id import GATEWAY
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.protocol import MAX_TUNNELS_OF_NODE
from fedattn.wire.security import OwnCertificates
from fedattn.wire.server import AddServicers, WireServer
from fedattn.wire.tunnel import SocketFolder, carry
from fedattn.wire.v1 import aggregator_pb2, participant_pb2

SERVICE_NAME = participant_pb2.DESCRIPTOR.services_by_name["ParticipantService"].full_name

log = structlog.get_logger(__name__)


class Door:
    """A gRPC server for gateways on a socket of this process; no port leads to it.

    Args:
        add: registers the servicers.
        aggregators: the one that this node is joined at carries the connections.
        certificates: what the node proves itself with; None for plaintext.
    """

    def __init__(
        self,
        add: AddServicers,
        aggregators: Aggregators,
        certificates: OwnCertificates | None = None,
    ) -> None:
        self._add, self._aggregators = add, aggregators
        self._server = WireServer([SERVICE_NAME], certificates, callers=frozenset({GATEWAY}))
        self._sockets = SocketFolder()
        self._path: SocketPath | None = None
        self._carried: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Take connections from now on.

        Raises:
            ConfigurationError: there is no room for a socket.
        """
        path = self._sockets.new()
        await self._server.start(path, self._add, with_reflection=False)
        self._path = path

    def take(self, call: aggregator_pb2.TunnelCall) -> None:
        """Take a gateway's connection, unless there are too many for an honest aggregator."""
        if self._path is None or len(self._carried) >= MAX_TUNNELS_OF_NODE:
            log.warning("connection_refused", connections=len(self._carried))
            return
        task = asyncio.create_task(self._carry(self._path, call.token))
        self._carried.add(task)
        task.add_done_callback(self._carried.discard)

    def hang_up(self) -> None:
        """End the connections: the aggregator that carries them is gone."""
        for task in self._carried:
            task.cancel()

    async def close(self) -> None:
        """Take no more, and end what runs."""
        self._path = None
        await self._server.stop()
        self.hang_up()
        await asyncio.gather(*self._carried, return_exceptions=True)
        self._sockets.close()

    async def _carry(self, path: SocketPath, token: str) -> None:
        first = aggregator_pb2.TunnelRequest(answer=aggregator_pb2.TunnelAnswer(token=token))
        try:
            reader, writer = await asyncio.open_unix_connection(path.path)
            await carry(reader, writer, first, self._aggregators.home)
        except (FedAttnError, OSError) as error:
            log.info("connection_ended", reason=str(error))
