"""An aggregator that lies: real to its nodes, with tricks on every message that passes.

It has the aggregator's certificate. Behind it an honest one works in plaintext, so that a trick is
all that is wrong.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import grpc

from fedattn.core.node_id import AGGREGATOR
from fedattn.wire.stubs import AggregatorStub
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import aggregator_pb2_grpc
from services.aggregator.settings import AggregatorSettings
from tests.harness.channels import direct_channel
from tests.harness.identities import certificates_of
from tests.harness.runners import running_aggregator

M = TypeVar("M")


class Tricks:
    """What it does to messages; each may change one, drop it (none) or send more. Honest here."""

    def lists(self, response: pb.ListNodesResponse) -> pb.ListNodesResponse:
        """Who is joined, and what hints for them are sealed to."""
        return response

    def opens(self, request: pb.OpenSessionRequest) -> pb.OpenSessionRequest:
        """A publisher opens a session."""
        return request

    def opened(self, response: pb.OpenSessionResponse) -> pb.OpenSessionResponse:
        """What the publisher is told."""
        return response

    def says(self, node_id: str, request: pb.ControlRequest) -> Iterable[pb.ControlRequest]:
        """A node's word on its control stream."""
        return (request,)

    def told(self, node_id: str, response: pb.ControlResponse) -> Iterable[pb.ControlResponse]:
        """What a node is told on its control stream."""
        return (response,)

    def sends(self, request: pb.ExchangeRequest) -> Iterable[pb.ExchangeRequest]:
        """A member's key, chunk or last word."""
        return (request,)

    def carries(self, request: pb.TunnelRequest) -> Iterable[pb.TunnelRequest]:
        """Bytes of one end of a gateway's connection to a node, or who it is."""
        return (request,)

    def gets(self, response: pb.ExchangeResponse) -> Iterable[pb.ExchangeResponse]:
        """What a member gets."""
        return (response,)


class HostileAggregator(aggregator_pb2_grpc.AggregatorServiceServicer):
    """Passes everything on, through its tricks."""

    def __init__(self, back: AggregatorStub) -> None:
        self._back = back
        self.tricks = Tricks()

    async def Control(  # noqa: N802 - as generated
        self, request_iterator: AsyncIterator[pb.ControlRequest], context: Any
    ) -> AsyncIterator[pb.ControlResponse]:
        names: list[str] = []

        def says(request: pb.ControlRequest) -> Iterable[pb.ControlRequest]:
            if request.HasField("join"):
                names.append(request.join.node_id)
            return self.tricks.says(names[0], request)

        call = self._back.Control(_through(request_iterator, says))
        try:
            async for response in call:
                for changed in self.tricks.told(names[0], response):
                    yield changed
        finally:
            call.cancel()

    async def OpenSession(  # noqa: N802
        self, request: pb.OpenSessionRequest, context: Any
    ) -> pb.OpenSessionResponse:
        try:
            response = await self._back.OpenSession(self.tricks.opens(request))
        except grpc.aio.AioRpcError as error:
            trailing = tuple(error.trailing_metadata() or ())
            await context.abort(error.code(), error.details() or "", trailing)
            raise AssertionError("abort raises") from error
        return self.tricks.opened(response)

    async def ListNodes(  # noqa: N802
        self, request: pb.ListNodesRequest, context: Any
    ) -> pb.ListNodesResponse:
        return self.tricks.lists(await self._back.ListNodes(request))

    async def Exchange(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ExchangeRequest], context: Any
    ) -> AsyncIterator[pb.ExchangeResponse]:
        call = self._back.Exchange(_through(request_iterator, self.tricks.sends))
        try:
            async for response in call:
                for changed in self.tricks.gets(response):
                    yield changed
        except grpc.aio.AioRpcError as error:
            trailing = tuple(error.trailing_metadata() or ())
            await context.abort(error.code(), error.details() or "", trailing)
        finally:
            call.cancel()

    async def Tunnel(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.TunnelRequest], context: Any
    ) -> AsyncIterator[pb.TunnelResponse]:
        call = self._back.Tunnel(_through(request_iterator, self.tricks.carries))
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            trailing = tuple(error.trailing_metadata() or ())
            await context.abort(error.code(), error.details() or "", trailing)
        finally:
            call.cancel()


async def _through(
    messages: AsyncIterator[M], trick: Callable[[M], Iterable[M]]
) -> AsyncIterator[M]:
    async for message in messages:
        for changed in trick(message):
            yield changed


@asynccontextmanager
async def hostile_aggregator(
    settings: AggregatorSettings | None = None,
) -> AsyncIterator[tuple[str, HostileAggregator]]:
    """A hostile aggregator on a free port; yields its address and itself."""
    async with AsyncExitStack() as stack:
        behind = await stack.enter_async_context(running_aggregator(settings))
        channel = await stack.enter_async_context(direct_channel(behind))
        hostile = HostileAggregator(AggregatorStub(channel))
        server = grpc.aio.server()
        aggregator_pb2_grpc.add_AggregatorServiceServicer_to_server(hostile, server)
        credentials = certificates_of(AGGREGATOR).for_server()
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        stack.push_async_callback(server.stop, 0)
        yield f"127.0.0.1:{port}", hostile
