"""Connections of an HTTP server: how many, and how long each may take over what it does."""

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

from fedattn.core.errors import ConfigurationError

HANDSHAKE_TIMEOUT_S = 10.0
"""Longest TLS handshake: a few round trips, over the slowest links that are of use."""
_IPV6_NETWORK_BITS = 64
"""What one customer of a provider has at least: addresses within it are one peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Who may connect.

    Attributes:
        max_connections: of all peers; below the usual limit of 1,024 open files of a process.
        max_per_address: of one address, and of one /64 of IPv6.
        tls: for HTTPS; None for HTTP.
    """

    max_connections: int = 512
    max_per_address: int = 128
    tls: ssl.SSLContext | None = None


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer, with a certificate (chain) and its key, both PEM.

    Raises:
        ConfigurationError: they cannot be read, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # SSLError is one
        raise ConfigurationError(
            f"--tls-certificate {certificate}, --tls-key {key}: expected a PEM certificate and its "
            f"key, which this user may read, got: {error.strerror or error}"
        ) from error
    return context


class Crowd:
    """The connections that are open."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._by_address: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Whether one more of this address may come in; it is then counted."""
        is_full = (
            self._by_address.total() >= self._doors.max_connections
            or self._by_address[address] >= self._doors.max_per_address
        )
        if not is_full:
            self._by_address[address] += 1
        return not is_full

    def leave(self, address: str) -> None:
        """One that came in is gone."""
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


class Inside(asyncio.Protocol):
    """What a `Door` leads to; tells when its connection is gone."""

    on_lost: Callable[[], None]


class Door(asyncio.Protocol):
    """Lets a connection in, or drops it at once; shakes hands if that is to be done.

    Args:
        doors: who may connect.
        crowd: who is there.
        make_inside: makes what speaks with a client that was let in.
    """

    def __init__(self, doors: Doors, crowd: Crowd, make_inside: Callable[[], Inside]) -> None:
        self._doors = doors
        self._crowd = crowd
        self._make_inside = make_inside
        self._address: str | None = None
        self._early = bytearray()
        self._handshake: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        address = peer_of(transport.get_extra_info("peername"))
        if not self._crowd.enter(address):
            transport.abort()
            return
        self._address = address
        _notice_what_waits(transport)
        if self._doors.tls is None:
            self._lead_inside(transport)
        else:
            transport.pause_reading()
            self._handshake = asyncio.create_task(self._shake_hands(transport, self._doors.tls))

    def data_received(self, data: bytes) -> None:
        self._early += data  # came with the last message of the handshake

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._leave()

    async def _shake_hands(self, transport: asyncio.Transport, tls: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            encrypted = await loop.start_tls(
                transport, self, tls, server_side=True, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S
            )
        except OSError:  # too slow, gone, or no TLS; TimeoutError and SSLError are such
            transport.abort()
            self._leave()
            return
        if self._address is not None and encrypted is not None:
            _notice_what_waits(encrypted)
            self._lead_inside(encrypted)

    def _lead_inside(self, transport: asyncio.Transport) -> None:
        inside = self._make_inside()
        inside.on_lost = self._leave
        transport.set_protocol(inside)
        inside.connection_made(transport)
        if self._early:
            inside.data_received(bytes(self._early))
            self._early.clear()

    def _leave(self) -> None:
        """Count the connection no more; once."""
        if self._address is not None:
            self._crowd.leave(self._address)
            self._address = None


def peer_of(peername: Any) -> str:
    """Whom an address is counted for."""
    host = str(peername[0]).partition("%")[0] if peername else ""
    try:
        ip = ip_address(host)
    except ValueError:
        return host
    if not isinstance(ip, IPv6Address):
        return host
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ip_network((ip, _IPV6_NETWORK_BITS), strict=False))


def _notice_what_waits(transport: asyncio.WriteTransport) -> None:
    """Let the protocol know as soon as the client does not take something."""
    transport.set_write_buffer_limits(high=1, low=0)  # at 0, TLS would be paused with nothing
