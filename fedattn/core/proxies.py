"""Whether a connection goes through a proxy, decided once for gRPC and HTTP.

Peers on this machine and on private networks are dialled directly: a proxy of the environment is
there for the way out, and hardly ever leads back in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from fedattn.core.address import HostPort, SocketPath
from fedattn.core.errors import ConfigurationError

AUTO, DIRECT = "auto", "none"
_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")
_EXPECTED = "expected http://HOST:PORT"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a peer is and how it is reached; its text is for messages.

    Attributes:
        address: of the peer.
        proxy: URL of the HTTP proxy on the way there; None for a direct connection.
    """

    address: HostPort | SocketPath
    proxy: str | None = None

    def __str__(self) -> str:
        if self.proxy is None:
            return str(self.address)
        return f"{self.address} (through the proxy {_hide_login(self.proxy)})"


def find_endpoint(
    address: HostPort, environment: Mapping[str, str], choice: str = AUTO
) -> Endpoint:
    """How to reach an address.

    Args:
        address: of the peer.
        environment: of the process; `grpc_proxy`, `https_proxy`, `http_proxy` and `all_proxy`
            count in this order, `no_proxy` names exceptions, in lower or upper case.
        choice: `auto` follows the environment for peers that are not near (`HostPort.is_near`),
            `none` never takes a proxy, http://HOST:PORT is taken for every peer.

    Raises:
        ConfigurationError: the proxy that should be taken is none we can speak to.
    """
    if choice not in {AUTO, DIRECT}:
        return Endpoint(address, check_proxy_choice(choice))
    if choice == DIRECT or address.is_near or _is_exempt(address, environment):
        return Endpoint(address)
    for name in _VARIABLES:
        if url := _read(environment, name):
            return Endpoint(address, _check_url(url, name, "unset it, or add the peer to no_proxy"))
    return Endpoint(address)


def check_proxy_choice(choice: str) -> str:
    """A setting's value; a proxy's URL with its scheme.

    Raises:
        ConfigurationError: it is neither auto, none, nor the URL of a proxy.
    """
    if choice in {AUTO, DIRECT}:
        return choice
    return _check_url(choice, "proxy", f"or write {AUTO} or {DIRECT}")


def _is_exempt(address: HostPort, environment: Mapping[str, str]) -> bool:
    exceptions = _read(environment, "no_proxy").lower().split(",")
    host = address.host.rstrip(".").lower()
    return any(_covers(exception.strip().lstrip("."), host) for exception in exceptions)


def _covers(exception: str, host: str) -> bool:
    """Whether an entry of no_proxy (*, a name, an end of names, an address, a net) means a host."""
    if exception in {"*", host} or (exception and host.endswith(f".{exception}")):
        return True
    try:
        return ip_address(host) in ip_network(exception, strict=False)
    except ValueError:
        return False


def _read(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.upper()) or ""


def _check_url(url: str, name: str, remedy: str) -> str:
    scheme, colon, rest = url.rstrip("/").rpartition("://")
    refused = ConfigurationError(f"{name}: {_EXPECTED}, got {_hide_login(url)[:80]!r}; {remedy}")
    if colon and scheme != "http":
        raise refused
    try:
        HostPort.parse(rest.rpartition("@")[2])
    except ConfigurationError:
        raise refused from None
    return f"http://{rest}"


def _hide_login(url: str) -> str:
    """A proxy's URL for people, without who logs in there."""
    scheme, colon, rest = url.rpartition("://")
    return f"{scheme}{colon}{rest.rpartition('@')[2]}"
