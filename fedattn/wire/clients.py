"""A typed client of the aggregator: our errors instead of gRPC's, a deadline on each request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedattn.core.errors import AggregatorUnavailableError, FedAttnError
from fedattn.runtime.tracing import trace_metadata
from fedattn.wire.channel import becomes_ready
from fedattn.wire.exchange import EXCHANGE, Response, read_response, to_bytes
from fedattn.wire.requests import Opening, opening_to_wire
from fedattn.wire.status import error_from_rpc, raise_if_cancelled
from fedattn.wire.stubs import AggregatorStub
from fedattn.wire.texts import clean_texts
from fedattn.wire.v1 import aggregator_pb2 as pb

M = TypeVar("M")

_LIST_TIMEOUT_S = 5.0
_ALIVE_TIMEOUT_S = 2.0


class Responses(Generic[M]):
    """The responses of one call, in order, their texts clean. Leaving the `with` block ends
    the call.

    Args:
        call: just made.
        unreachable: raised if the peer cannot be reached.
        read: makes a response of what came, which is one if not given.
    """

    def __init__(
        self,
        call: grpc.aio.StreamStreamCall[Any, Any],
        unreachable: FedAttnError,
        read: Callable[[Any], M] = clean_texts,
    ) -> None:
        self._call, self._read = call, read
        self._responses = aiter(call)
        self._unreachable = unreachable

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._call.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> M:
        """The next response.

        Raises:
            FedAttnError: as sent by the peer, or it cannot be reached.
        """
        try:
            return self._read(await anext(self._responses))
        except StopAsyncIteration:
            raise_if_cancelled()
            raise
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self._unreachable) from None
        except asyncio.CancelledError:  # of the caller, or of the call because its channel closed
            raise_if_cancelled()
            raise self._unreachable from None


class AggregatorClient:
    """One aggregator, as its nodes and gateways call it.

    Args:
        channel: gives the one to the aggregator for each call; the caller closes it.
        address: of the aggregator, for messages.
    """

    def __init__(self, channel: Callable[[], grpc.aio.Channel], address: str) -> None:
        self._channel = channel
        self.address = address

    @property
    def _stub(self) -> AggregatorStub:
        return AggregatorStub(self._channel())

    @property
    def _unreachable(self) -> FedAttnError:
        """A new one for each call: a raised error keeps its traceback, and so the call, alive."""
        return AggregatorUnavailableError(
            f"the aggregator at {self.address} cannot be reached; check the setting "
            f"`aggregator` and that the aggregator runs"
        )

    async def reach(self, within_s: float) -> None:
        """Wait for the connection.

        Raises:
            AggregatorUnavailableError: it is refused, or not made in time.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                if await becomes_ready(self._channel()):
                    return
        raise self._unreachable

    def control(self, requests: AsyncIterator[pb.ControlRequest]) -> Responses[pb.ControlResponse]:
        """Commands for a node, for as long as its membership lives."""
        return Responses(self._stub.Control(requests), self._unreachable)

    def exchange(
        self, requests: AsyncIterator[pb.ExchangeRequest | bytes], timeout_s: float
    ) -> Responses[Response]:
        """Rows of earlier members of a session."""
        lost = AggregatorUnavailableError(
            f"the aggregator at {self.address} was lost during the session"
        )
        method: Any = self._channel().stream_stream(EXCHANGE, request_serializer=to_bytes)
        call = method(requests, timeout=timeout_s, metadata=trace_metadata())
        return Responses(call, lost, read_response)

    def tunnel(self, requests: AsyncIterator[pb.TunnelRequest]) -> Responses[pb.TunnelResponse]:
        """Bytes of the other end of a gateway's connection to a node."""
        return Responses(self._stub.Tunnel(requests), self._unreachable)

    async def open_session(
        self,
        opening: Opening,
        timeout_s: float,
        *,
        redirected: bool = False,
        unreachable: Sequence[str] = (),
    ) -> pb.OpenSessionResponse:
        """Open a session, or learn where to.

        Args:
            opening: what is asked for.
            timeout_s: longest wait, seconds.
            redirected: whether another aggregator said that this one serves it.
            unreachable: names of aggregators that cannot be reached from here.

        Raises:
            FedAttnError: as sent by the aggregator, or it cannot be reached.
        """
        try:
            message = opening_to_wire(opening)
            message.redirected = redirected
            message.unreachable.extend(unreachable)
            return clean_texts(
                await self._stub.OpenSession(message, timeout=timeout_s, metadata=trace_metadata())
            )
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self._unreachable) from None

    async def list_nodes(
        self, request: pb.ListNodesRequest, within_s: float = _LIST_TIMEOUT_S
    ) -> pb.ListNodesResponse:
        """Nodes that are joined right now, for one of them or for a gateway.

        Raises:
            FedAttnError: the caller is neither, or the aggregator does not answer.
        """
        try:
            return clean_texts(
                await self._stub.ListNodes(request, timeout=within_s, metadata=trace_metadata())
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise_if_cancelled()
                raise self._silent(within_s) from None
            raise error_from_rpc(error, self._unreachable) from None

    async def check_alive(self) -> None:
        """Return if the aggregator answers at once, whatever it answers.

        Raises:
            AggregatorUnavailableError: it does not.
        """
        health = health_pb2_grpc.HealthStub(self._channel())
        try:
            await health.Check(health_pb2.HealthCheckRequest(), timeout=_ALIVE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise_if_cancelled()
            match error.code():
                case grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise self._silent(_ALIVE_TIMEOUT_S) from None
                case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
                    raise self._unreachable from None

    def _silent(self, for_s: float) -> FedAttnError:
        return AggregatorUnavailableError(
            f"the aggregator at {self.address} did not answer within {for_s:g} s; look whether its "
            f"process is stopped, or its machine overloaded"
        )
