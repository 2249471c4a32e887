"""Numbers for Prometheus, on a port of their own. Never text, and no label without a bound."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Info,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from fedattn import __version__
from fedattn.core.errors import ConfigurationError


def new_registry(service: str) -> CollectorRegistry:
    """A registry with memory, CPU time and open files of this process, and its version."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Info("fedattn_build", "Which service this is.", registry=registry)
    build.info({"version": __version__, "service": service})
    return registry


@contextmanager
def serve_metrics(address: str | None, registry: CollectorRegistry) -> Iterator[int]:
    """Answer `GET /metrics` at host:port while the block runs; nowhere for None.

    Yields:
        The port, which is free to choose for 0.

    Raises:
        ConfigurationError: the address is malformed or cannot be bound.
    """
    if address is None:
        yield 0
        return
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ConfigurationError(f"metrics: expected host:port, got {address!r}")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise ConfigurationError(
            f"metrics: cannot listen on {address}: {error.strerror}; choose another address"
        ) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
