"""Listening: on all addresses that a host means, or on none and saying why."""

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError
from fedattn.runtime.listening import find_free, open_listeners

LOOPBACK = HostPort("127.0.0.1", 0)
Resolve = Callable[..., None]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Lets every name mean some addresses."""

    def to(*hosts: str) -> None:
        found = [
            (
                socket.AF_INET6 if ":" in host else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (host, 0),
            )
            for host in hosts
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)

    return to


@pytest.fixture
def taken() -> Iterator[int]:
    """A port somebody listens on at 127.0.0.2."""
    with socket.create_server(("127.0.0.2", 0)) as other:
        yield other.getsockname()[1]


def names(address: HostPort) -> list[tuple[str, int]]:
    listeners = open_listeners(address)
    found = [listener.getsockname()[:2] for listener in listeners]
    for listener in listeners:
        listener.close()
    return found


def test_a_name_is_bound_at_each_of_its_addresses_on_one_port(resolve: Resolve) -> None:
    resolve("127.0.0.1", "127.0.0.2", "127.0.0.1")
    (first, port), (second, same) = names(HostPort("machine", 0))
    assert (first, second) == ("127.0.0.1", "127.0.0.2")
    assert port == same != 0


def test_one_taken_address_refuses_all_and_leaves_none_open(resolve: Resolve, taken: int) -> None:
    resolve("127.0.0.1", "127.0.0.2")
    with pytest.raises(
        ConfigurationError,
        match=rf"cannot listen on machine:{taken} at 127\.0\.0\.2: Address already in use; stop",
    ):
        open_listeners(HostPort("machine", taken))
    with closing(socket.create_server(("127.0.0.1", taken))):
        pass  # free again


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot listen on 192\.0\.2\.1:7: .*assign"):
        open_listeners(HostPort("192.0.2.1", 7))


def test_a_name_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ConfigurationError, match=r"on nowhere:7: Name or service not known"):
        open_listeners(HostPort("nowhere", 7))


def test_localhost_does_without_an_ipv6_that_the_machine_lacks(
    resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = socket.create_server

    def without_ipv6(address: tuple[str, int], **options: object) -> socket.socket:
        if address[0] == "::1":
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return listen(address)

    resolve("::1", "127.0.0.1")
    monkeypatch.setattr(socket, "create_server", without_ipv6)
    assert [host for host, _ in names(HostPort("localhost", 0))] == ["127.0.0.1"]
    resolve("::1")
    with pytest.raises(ConfigurationError, match=r"cannot listen on localhost:0 at ::1"):
        open_listeners(HostPort("localhost", 0))


def test_free_addresses_are_closed_again_for_others_to_take(resolve: Resolve) -> None:
    assert find_free(LOOPBACK) == [LOOPBACK]
    resolve("127.0.0.1", "127.0.0.2")
    first, second = find_free(HostPort("machine", 0))
    assert first.port == second.port != 0
    with closing(socket.create_server((first.host, first.port))):
        pass
