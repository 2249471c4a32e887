"""Numbers for Prometheus, on a port of their own. Never text, and no label without a bound."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prometheus_client import (
    CollectorRegistry,
    Info,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from fedattn import __version__
from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError
from fedattn.runtime.listening import find_free

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Buckets of what people wait for."""
TOKEN_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.5)
"""Buckets of the time between two tokens."""


def new_registry(service: str) -> CollectorRegistry:
    """A registry with memory, CPU time and open files of this process, and its version."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Info("fedattn_build", "Which service this is.", registry=registry)
    build.info({"version": __version__, "service": service})
    return registry


@contextmanager
def serve_metrics(address: HostPort | None, registry: CollectorRegistry) -> Iterator[int]:
    """Answer `GET /metrics` while the block runs; nowhere for None.

    Yields:
        The port, which is free to choose for 0.

    Raises:
        ConfigurationError: the address cannot be bound.
    """
    with ExitStack() as servers:
        ports = [
            servers.enter_context(_serve_at(one, registry))
            for one in ([] if address is None else find_free(address))
        ]
        yield ports[0] if ports else 0


@contextmanager
def _serve_at(address: HostPort, registry: CollectorRegistry) -> Iterator[int]:
    try:
        server, thread = start_http_server(address.port, address.host, registry)
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
