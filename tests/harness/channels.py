"""Channels to services of a test, by the text of their address."""

import grpc

from fedattn.core.address import HostPort
from fedattn.core.proxies import Endpoint
from fedattn.wire.channel import open_channel
from fedattn.wire.security import Certificates


def endpoint(address: str) -> Endpoint:
    """HOST:PORT, dialled directly."""
    return Endpoint(HostPort.parse(address))


def direct_channel(
    address: str, certificates: Certificates | None = None, *, peer: str = ""
) -> grpc.aio.Channel:
    """`open_channel` to HOST:PORT."""
    return open_channel(endpoint(address), certificates, peer=peer)
