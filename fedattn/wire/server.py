"""Starting and stopping a gRPC server: health, reflection, errors, a taken port, draining."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fedattn.core.address import HostPort, SocketPath
from fedattn.core.errors import ConfigurationError, FedAttnError, InternalError
from fedattn.runtime.listening import find_free
from fedattn.runtime.tracing import TRACEPARENT, Kind, Span, span
from fedattn.wire.call_limits import MAX_CALLS_PER_PEER, CallLimits
from fedattn.wire.exchange import EXCHANGE
from fedattn.wire.options import COMMON_OPTIONS, Options
from fedattn.wire.peer_gate import PeerGate
from fedattn.wire.revocation import Revocations
from fedattn.wire.security import OwnCertificates
from fedattn.wire.status import abort_with

_OPTIONS: Options = [
    *COMMON_OPTIONS,
    ("grpc.so_reuseport", 0),  # a second service on one port is an error, not a surprise
    ("grpc.max_concurrent_streams", MAX_CALLS_PER_PEER),  # of one connection
    ("grpc.max_connection_idle_ms", 600_000),  # without any call
]

_LAST_WORDS_S = 0.5
_NO_TRACE_OF_ITS_OWN = ("/Control", "/ListNodes", "/Tunnel")
"""What lasts as long as a membership, and what is asked again and again."""

log = structlog.get_logger(__name__)

AddServicers = Callable[[grpc.aio.Server], None]


class WireServer:
    """One listening gRPC server with `grpc.health.v1` and optional reflection.

    Args:
        services: full names, such as fedattn.wire.v1.AggregatorService.
        certificates: what it proves itself with; None for plaintext.
        callers: names that callers' certificates must bear; None for any that is signed.
    """

    def __init__(
        self,
        services: Sequence[str],
        certificates: OwnCertificates | None = None,
        callers: frozenset[str] | None = None,
    ) -> None:
        self._services = tuple(services)
        self._certificates = certificates
        revocations = Revocations() if certificates is None else certificates.revocations
        interceptor = ErrorInterceptor(PeerGate(revocations, callers))
        self._server = grpc.aio.server(options=_OPTIONS, interceptors=[interceptor])
        self._health = health.aio.HealthServicer()
        self.port = 0

    async def start(
        self, address: HostPort | SocketPath, add: AddServicers, *, with_reflection: bool
    ) -> None:
        """Bind all addresses of the host, and serve.

        Args:
            address: where; port 0 for any free one.
            add: registers the servicers.
            with_reflection: whether clients may ask for the schema.

        Raises:
            ConfigurationError: one of them cannot be bound.
        """
        add(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if with_reflection:
            names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        if isinstance(address, SocketPath):
            self._bind(address)
        else:
            for one in find_free(address):  # gRPC would be content with one of them
                self.port = self._bind(one)
        await self._server.start()
        await self.set_serving(serving=True)

    def _bind(self, address: HostPort | SocketPath) -> int:
        target = str(address)
        try:
            if self._certificates is None:
                return self._server.add_insecure_port(target)
            return self._server.add_secure_port(target, self._certificates.for_server())
        except RuntimeError as error:
            raise ConfigurationError(
                f"cannot listen on {address}: somebody took it just now; choose another port"
            ) from error

    async def set_serving(self, *, serving: bool) -> None:
        """Tell health checks whether to send work here."""
        serving_status = health_pb2.HealthCheckResponse.ServingStatus
        status = serving_status.SERVING if serving else serving_status.NOT_SERVING
        for name in ("", *self._services):
            await self._health.set(name, status)

    async def stop(self, grace_s: float = _LAST_WORDS_S) -> None:
        """Report not serving, refuse new calls, let running ones end within `grace_s`.

        Work worth waiting for has been drained before: what stays is mostly somebody who watches
        the health of this service, and would for ever.
        """
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Lets in whom the gate lets in, and each with so many calls at once.

    Turns our errors into statuses, and everything unforeseen into a logged InternalError. A stream
    may answer with bytes too: a chunk passes on as it came. Requests of an exchange are bytes.
    """

    def __init__(self, gate: PeerGate) -> None:
        self._gate = gate
        self._calls = CallLimits()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith("/fedattn."):
            return handler
        if handler.response_streaming:
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            behavior = self._guard_stream(method, handler.stream_stream or handler.unary_stream)
            serializer = _unless_serialized(handler.response_serializer)
        else:
            make = grpc.unary_unary_rpc_method_handler
            behavior = self._guard_unary(method, handler.unary_unary)
            serializer = handler.response_serializer
        deserializer = None if method == EXCHANGE else handler.request_deserializer
        return make(behavior, deserializer, serializer)

    def _guard_stream(
        self, method: str, behavior: Callable[[Any, Any], Any]
    ) -> Callable[[Any, Any], Any]:
        async def guarded(request: Any, context: Any) -> Any:
            try:
                with (
                    self._gate.within(context),
                    self._calls.within(context),
                    _traced(method, context),
                ):
                    async with aclosing(behavior(request, context)) as responses:
                        async for response in responses:
                            yield response
            except Exception as error:  # border: the last place before the wire
                await _abort(context, error)

        return guarded

    def _guard_unary(
        self, method: str, behavior: Callable[[Any, Any], Any]
    ) -> Callable[[Any, Any], Any]:
        async def guarded(request: Any, context: Any) -> Any:
            try:
                with (
                    self._gate.within(context),
                    self._calls.within(context),
                    _traced(method, context),
                ):
                    return await behavior(request, context)
            except Exception as error:  # border: the last place before the wire
                await _abort(context, error)

        return guarded


def _traced(method: str, context: Any) -> AbstractContextManager[Span | None]:
    """A call as a span, below the caller's."""
    name, metadata = method.removeprefix("/"), dict(context.invocation_metadata() or ())
    parent = str(metadata.get(TRACEPARENT, ""))
    if not parent and method.endswith(_NO_TRACE_OF_ITS_OWN):
        return nullcontext()
    attributes = {"rpc.system.name": "grpc", "rpc.method": name}
    return span(name, attributes, kind=Kind.SERVER, parent=parent)


def _unless_serialized(serializer: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    return lambda message: message if isinstance(message, bytes) else serializer(message)


async def _abort(context: Any, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, FedAttnError):
        log.error("unforeseen_error", exc_info=error)
        error = InternalError("internal error; see the log of the node that answered")
    await abort_with(context, error)
