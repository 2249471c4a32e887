"""The aggregators of one federation, as a node or a gateway reaches them."""

import asyncio
from collections.abc import Callable, Sequence

from cachetools import LRUCache

from fedattn.core.address import HostPort
from fedattn.core.errors import AggregatorUnavailableError, ConfigurationError
from fedattn.core.node_id import AGGREGATOR
from fedattn.core.proxies import Endpoint
from fedattn.wire.channel import PeerChannel
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.security import OwnCertificates

_MAX_CHANNELS = 128
"""Aggregators that channels are kept to: those of the settings, and those that these have named."""


class Aggregators:
    """Channels to aggregators by their addresses; one of those that were given is `home`.

    Each must prove itself as an aggregator of this federation, wherever it is and whoever named it.

    Args:
        given: those of the settings, at least one.
        certificates: of this end; None for plaintext.
        find_way: how to reach an address that an aggregator names.
    """

    def __init__(
        self,
        given: Sequence[Endpoint],
        certificates: OwnCertificates | None,
        find_way: Callable[[HostPort], Endpoint] = Endpoint,
    ) -> None:
        self._given, self._certificates, self._find_way = tuple(given), certificates, find_way
        self._place = 0
        self._channels: LRUCache[str, PeerChannel] = LRUCache(_MAX_CHANNELS)
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def num_given(self) -> int:
        """How many may be home."""
        return len(self._given)

    @property
    def home(self) -> AggregatorClient:
        """The one that is asked first."""
        return self._client(self._given[self._place])

    def move_on(self, lost: AggregatorClient) -> None:
        """Make the next one home, if the one that was lost is."""
        if lost.address == str(self._given[self._place]):
            self._place = (self._place + 1) % len(self._given)

    def at(self, address: str) -> AggregatorClient:
        """The one at an address that an aggregator named.

        Raises:
            AggregatorUnavailableError: it is no address, or there is no way to it.
        """
        try:
            return self._client(self._find_way(HostPort.parse(address)))
        except ConfigurationError as error:
            raise AggregatorUnavailableError(
                f"the aggregator of the session names an address of no use: {error}"
            ) from None

    def _client(self, endpoint: Endpoint) -> AggregatorClient:
        return AggregatorClient(lambda: self._channel(endpoint).current(), str(endpoint))

    def _channel(self, endpoint: Endpoint) -> PeerChannel:
        known = self._channels.get(str(endpoint))
        if known is None:
            if len(self._channels) == _MAX_CHANNELS:
                _, oldest = self._channels.popitem()
                closing = asyncio.create_task(oldest.close())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            known = PeerChannel(endpoint, self._certificates, AGGREGATOR)
            self._channels[str(endpoint)] = known
        return known

    async def close(self) -> None:
        """End every call."""
        await asyncio.gather(*self._closing, return_exceptions=True)
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()
