"""Whether a proxy of the environment gets in the way to aggregator or gateway."""

import socket
from collections.abc import Iterator

from fedattn.cli.doctor.finding import Found, ok, skipped, warning
from fedattn.cli.doctor.subject import Subject
from fedattn.core.address import HostPort
from fedattn.core.proxies import AUTO, Endpoint, find_endpoint

_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")


def check_proxy(subject: Subject) -> Iterator[Found]:
    """What the environment says, and by which way each peer is reached."""
    named = {name for name in subject.environment if name.lower() in _VARIABLES}
    choice = subject.settings.proxy
    first = subject.settings.aggregator.first
    peers = {"aggregator": find_endpoint(first, subject.environment, choice)}
    if subject.gateway is not None:
        peers["gateway"] = subject.gateway.endpoint
    if not named and choice == AUTO:
        yield skipped("no proxy is set")
        return
    for who, endpoint in peers.items():
        yield _look(who, endpoint, ", ".join(sorted(named)) or f"--proxy {choice}")


def _look(who: str, endpoint: Endpoint, named: str) -> Found:
    assert isinstance(endpoint.address, HostPort)  # both are reached by TCP
    if endpoint.proxy is None:
        return ok(f"{named}: not taken to the {who} at {endpoint}")
    if inner := _private_address(endpoint.address):
        return warning(
            f"{named}: the way to the {who} is {endpoint}, but its name means {inner} here",
            f"add {endpoint.address.host} to no_proxy, or give --proxy none",
        )
    return warning(
        f"{named}: the way to the {who} is {endpoint}",
        f"let the proxy pass CONNECT to port {endpoint.address.port}; or add "
        f"{endpoint.address.host} to no_proxy, or give --proxy none",
    )


def _private_address(address: HostPort) -> str | None:
    """The private address that a public name means on this machine, if it does."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:
        return None
    hosts = [str(name[0]) for *_, name in found]
    return next((host for host in hosts if HostPort(host, address.port).is_near), None)
