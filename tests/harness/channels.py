"""Channels to services of a test, by the text of their address."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from fedattn.core.address import HostPort
from fedattn.core.node_id import AGGREGATOR
from fedattn.core.proxies import Endpoint
from fedattn.wire.channel import PeerChannel, open_channel
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.security import Certificates, OwnCertificates
from gateway.way import Way
from gateway.ways import Ways


def endpoint(address: str) -> Endpoint:
    """HOST:PORT, dialled directly."""
    return Endpoint(HostPort.parse(address))


def direct_channel(
    address: str, certificates: Certificates | None = None, *, peer: str = ""
) -> grpc.aio.Channel:
    """`open_channel` to HOST:PORT."""
    return open_channel(endpoint(address), certificates, peer=peer)


@asynccontextmanager
async def way_to(
    node_id: str, aggregator: str, certificates: OwnCertificates | None = None
) -> AsyncIterator[Way]:
    """A gateway's way to a node that publishes, through the aggregator at HOST:PORT."""
    channel = PeerChannel(endpoint(aggregator), certificates, AGGREGATOR)
    ways = Ways(AggregatorClient(channel.current, aggregator), certificates)
    try:
        yield await ways.take(node_id, [node_id])
    finally:
        await ways.close()
        await channel.close()
