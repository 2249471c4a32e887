"""A gRPC service and its numbers listen on all addresses of their host, or on none."""

import socket
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry

from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError
from fedattn.runtime.metrics import serve_metrics
from fedattn.wire.probe import is_serving
from fedattn.wire.server import WireServer
from tests.harness.channels import endpoint

HOSTS = ("127.0.0.1", "127.0.0.2")
MACHINE = HostPort("machine", 0)


@pytest.fixture(autouse=True)
def two_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name `machine` has two addresses."""
    look_up = socket.getaddrinfo

    def resolve(host: str, port: int, *rest: int, **options: int) -> list[object]:
        names = HOSTS if host == MACHINE.host else (host,)
        return [found for name in names for found in look_up(name, port, *rest, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server((HOSTS[1], 0)) as other:
        yield other.getsockname()[1]


async def test_a_service_is_reached_at_each_address() -> None:
    server = WireServer([])
    await server.start(MACHINE, lambda _: None, with_reflection=False)
    for host in HOSTS:
        assert await is_serving(endpoint(f"{host}:{server.port}"), None, "")
    await server.stop(grace_s=0)


async def test_a_service_is_refused_if_one_address_is_taken(taken: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"on machine:{taken} at 127\.0\.0\.2: Address"):
        await WireServer([]).start(MACHINE.with_port(taken), lambda _: None, with_reflection=False)


def test_numbers_are_read_at_each_address() -> None:
    with serve_metrics(MACHINE, CollectorRegistry()) as port:
        for host in HOSTS:
            assert httpx.get(f"http://{host}:{port}/metrics", trust_env=False).is_success


def test_numbers_are_refused_if_one_address_is_taken(taken: int) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"at 127\.0\.0\.2: Address already in use"),
        serve_metrics(MACHINE.with_port(taken), CollectorRegistry()),
    ):
        pytest.fail("it serves")
