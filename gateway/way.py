"""The way to one node that publishes, behind the aggregator."""

import asyncio
from typing import Any

import grpc
import structlog

from fedattn.core.address import SocketPath
from fedattn.core.errors import FedAttnError, PublisherUnavailableError
from fedattn.core.proxies import Endpoint
from fedattn.wire.channel import PeerChannel, becomes_ready
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.protocol import SILENCE_S
from fedattn.wire.security import OwnCertificates
from fedattn.wire.status import error_from_rpc
from fedattn.wire.stubs import ParticipantStub
from fedattn.wire.tunnel import carry
from fedattn.wire.v1 import aggregator_pb2

CONNECT_TIMEOUT_S = 5.0

log = structlog.get_logger(__name__)


class Way:
    """A gRPC channel to a node, whose connections the aggregator carries.

    Args:
        node_id: the name that the other end's certificate must bear.
        path: of the socket of this process that gRPC connects to.
        aggregator: carries the connections.
        certificates: what the gateway proves itself with; None for plaintext.
    """

    def __init__(
        self,
        node_id: str,
        path: SocketPath,
        aggregator: AggregatorClient,
        certificates: OwnCertificates | None,
    ) -> None:
        self.node_id = node_id
        self.num_uses = 0
        self.aggregator = aggregator
        self._path, self._certificates = path, certificates
        self._carried: set[asyncio.Task[None]] = set()
        self._refused: asyncio.Future[FedAttnError] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Make the channel; it connects when first used."""
        self._server = await asyncio.start_unix_server(self._accept, self._path.path)
        self._channel = PeerChannel(Endpoint(self._path), self._certificates, self.node_id)

    async def connect(self) -> None:
        """Connect, unless that has been done.

        Raises:
            FedAttnError: why the aggregator carries nothing there, or it takes too long.
        """
        refused = self._refused
        ready = asyncio.create_task(becomes_ready(self._channel.current()))
        try:  # gRPC goes on to try after a refusal, which costs the client time and changes nothing
            either: set[asyncio.Future[Any]] = {ready, refused}
            await asyncio.wait(
                either, timeout=CONNECT_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
            )
            if ready.done() and ready.result():
                return
        finally:
            ready.cancel()
        error = refused.result() if refused.done() else self._unreachable()
        if isinstance(error, PublisherUnavailableError):
            error.lost = (self.node_id,)
        raise error if refused.done() else await self._unless_aggregator(error)

    def give_back(self) -> None:
        """Whoever took it needs it no more."""
        self.num_uses -= 1

    @property
    def stub(self) -> ParticipantStub:
        """For one call."""
        return ParticipantStub(self._channel.current())

    async def error_of(self, error: grpc.aio.AioRpcError) -> FedAttnError:
        """What a call to the node failed with; names the aggregator if that is what is lost."""
        known = error_from_rpc(error, self._unreachable())
        is_lost = isinstance(known, PublisherUnavailableError)
        return await self._unless_aggregator(known) if is_lost else known

    async def silent(self) -> FedAttnError:
        """What to raise if the node answers a query with silence."""
        return await self._unless_aggregator(
            PublisherUnavailableError(
                f"publisher {self.node_id} gave no sign of life for {SILENCE_S:g} s; look whether "
                f"its process is stopped, or its machine out of memory",
                lost=(self.node_id,),
            )
        )

    def _unreachable(self) -> PublisherUnavailableError:
        return PublisherUnavailableError(
            f"publisher {self.node_id} cannot be reached through the aggregator at "
            f"{self.aggregator.address}; look whether its participant runs, and under that name",
            lost=(self.node_id,),
        )

    async def _unless_aggregator(self, error: FedAttnError) -> FedAttnError:
        """The error of a lost node, unless the aggregator between is lost itself."""
        try:
            await self.aggregator.check_alive()
        except FedAttnError as lost:
            return lost
        return error

    async def close(self) -> None:
        """End every call."""
        self._server.close()
        self._path.path.unlink(missing_ok=True)  # asyncio does that from Python 3.13 on
        for task in self._carried:
            task.cancel()
        await self._channel.close()
        await asyncio.gather(*self._carried, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a connection; gRPC goes on to try after a failure, though nobody asks any more."""
        if self.num_uses == 0:
            writer.close()
            return
        task = asyncio.create_task(self._carry(reader, writer))
        self._carried.add(task)
        task.add_done_callback(self._carried.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opening = aggregator_pb2.TunnelOpen(node_id=self.node_id)
        try:
            first = aggregator_pb2.TunnelRequest(open=opening)
            await carry(reader, writer, first, self.aggregator)
        except FedAttnError as error:
            log.info("connection_ended", node=self.node_id, code=error.code)
            self._refuse(error)

    def _refuse(self, error: FedAttnError) -> None:
        """Tell those who wait for the channel now."""
        refused, self._refused = self._refused, asyncio.get_running_loop().create_future()
        refused.set_result(error)
