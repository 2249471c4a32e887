"""Where a service listens or is found: HOST:PORT, parsed once for all of them."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Self

from fedattn.core.errors import ConfigurationError

MAX_PORT = 65535
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_ZONE = re.compile(r"[A-Za-z0-9._-]{1,15}")
"""Name or number of a network interface."""
_MAX_NAME_LENGTH = 253
_MAX_PEERS = 64
_PRIVATE_DOMAINS = (
    ".localhost",
    ".local",
    ".internal",
    ".intranet",
    ".private",
    ".corp",
    ".home",
    ".home.arpa",
    ".lan",
)
"""Ends of names that are never public (RFC 6761, RFC 6762 appendix G, RFC 8375)."""


@dataclass(frozen=True, slots=True)
class SocketPath:
    """A socket in the file system (AF_UNIX); its text is as gRPC names it."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host and a TCP port.

    Attributes:
        host: a name, an IPv4 address, or an IPv6 address without brackets.
        port: 1 to 65535, or 0 where any free one will do.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the address of a peer, such as 10.0.0.5:50051 or [::1]:50051.

        Raises:
            ConfigurationError: it is no host and port; says what is wrong with it.
        """
        host, port = _split(text)
        return cls(_parse_host(host, text), _parse_port(port, text, least=1))

    @classmethod
    def parse_listening(cls, text: str) -> Self:
        """Read an address to listen on, whose port may be 0 for any free one.

        Raises:
            ConfigurationError: as `parse`.
        """
        host, port = _split(text)
        return cls(_parse_host(host, text), _parse_port(port, text, least=0))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def with_port(self, port: int) -> Self:
        """The same host, another port."""
        return type(self)(self.host, port)

    @property
    def is_loopback(self) -> bool:
        """As the function of this module."""
        return is_loopback(self.host)

    @property
    def is_near(self) -> bool:
        """Whether it is on this machine or a private network, as far as its text says.

        True for every address that is not globally routed, names without a dot, and names of
        domains that are private by convention. Nothing is looked up.
        """
        ip = _as_ip(self.host)
        if ip is not None:
            return not (getattr(ip, "ipv4_mapped", None) or ip).is_global
        name = self.host.rstrip(".").lower()
        return "." not in name or name.endswith(_PRIVATE_DOMAINS)


@dataclass(frozen=True, slots=True)
class HostPorts:
    """Where one of several peers is that can stand in for one another; at least one, each once."""

    all: tuple[HostPort, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read addresses with commas between.

        Raises:
            ConfigurationError: as `HostPort.parse`, or there are too many.
        """
        parts = tuple(dict.fromkeys(HostPort.parse(part.strip()) for part in text.split(",")))
        if len(parts) > _MAX_PEERS:
            raise ConfigurationError(f"expected at most {_MAX_PEERS} addresses, got {len(parts)}")
        return cls(parts)

    @property
    def first(self) -> HostPort:
        """The one that is tried first."""
        return self.all[0]

    def __str__(self) -> str:
        return ",".join(map(str, self.all))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: its name for itself, or an address of its loopback."""
    ip = _as_ip(host)
    return host.lower() == "localhost" if ip is None else ip.is_loopback


def _refuse(text: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"expected HOST:PORT, got {text[:80]!r}; {remedy}")


def _split(text: str) -> tuple[str, str]:
    """Host and port as they stand there; the host without brackets."""
    if "://" in text:
        scheme, _, rest = text.partition("://")
        raise _refuse(text, f"leave {scheme[:20]}:// out: {rest.partition('/')[0][:80]}")
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not (bracket and port.startswith(":") and _as_ip(host)):
            raise _refuse(text, "write an IPv6 address and port as [::1]:50051")
        return host, port[1:]
    host, colon, port = text.rpartition(":")
    if not colon and text.isdigit():
        raise _refuse(text, f"name the host too, such as 127.0.0.1:{text[:5]}")
    if not colon:
        raise _refuse(text, f"add a port, such as {text[:80] or 'localhost'}:50051")
    if ":" in host:
        raise _refuse(text, "write an IPv6 address in brackets, such as [::1]:50051")
    if not host:
        raise _refuse(text, "name the host too; 0.0.0.0 listens on every interface")
    return host, port


def _parse_port(port: str, text: str, *, least: int) -> int:
    if port.isascii() and port.isdigit() and len(port) <= 5 and least <= int(port) <= MAX_PORT:
        return int(port)
    raise _refuse(text, f"a port is {least} to {MAX_PORT}, not {port[:20]!r}")


def _parse_host(host: str, text: str) -> str:
    if _as_ip(host) is not None:
        return host
    labels = host.removesuffix(".").split(".")
    if len(host) > _MAX_NAME_LENGTH or not all(_LABEL.fullmatch(label) for label in labels):
        raise _refuse(text, "a host is a name of letters, digits, - and dots, or an IP address")
    if labels[-1].isdigit():
        raise _refuse(text, "an IPv4 address is four numbers from 0 to 255")
    return host


def _as_ip(host: str) -> IPv4Address | IPv6Address | None:
    """The address it is; ipaddress takes any text at all for the zone behind a %."""
    try:
        ip = ip_address(host)
    except ValueError:
        return None
    zone = getattr(ip, "scope_id", None)
    return ip if zone is None or _ZONE.fullmatch(zone) else None
