"""Channels to services of a test, by the text of their address."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from fedattn.core.address import HostPort
from fedattn.core.proxies import Endpoint
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.channel import open_channel
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
async def aggregators_at(
    address: str, certificates: OwnCertificates | None = None
) -> AsyncIterator[Aggregators]:
    """The aggregator at HOST:PORT."""
    aggregators = Aggregators([endpoint(address)], certificates)
    try:
        yield aggregators
    finally:
        await aggregators.close()


@asynccontextmanager
async def way_to(
    node_id: str, aggregator: str, certificates: OwnCertificates | None = None
) -> AsyncIterator[Way]:
    """A gateway's way to a node that publishes, through the aggregator at HOST:PORT."""
    async with aggregators_at(aggregator, certificates) as aggregators:
        ways = Ways(certificates)
        try:
            yield await ways.take(node_id, aggregators.home, [node_id])
        finally:
            await ways.close()
