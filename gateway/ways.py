"""The ways that a gateway keeps to nodes."""

import asyncio
from collections.abc import Collection

from fedattn.wire.clients import AggregatorClient
from fedattn.wire.security import OwnCertificates
from fedattn.wire.tunnel import SocketFolder
from gateway.way import Way


class Ways:
    """One to each node that was asked, until it is gone.

    Args:
        aggregator: carries the connections.
        certificates: what the gateway proves itself with; None for plaintext.
    """

    def __init__(self, aggregator: AggregatorClient, certificates: OwnCertificates | None) -> None:
        self._aggregator, self._certificates = aggregator, certificates
        self._sockets = SocketFolder()
        self._ways: dict[str, Way] = {}
        self._changing = asyncio.Lock()

    async def take(self, node_id: str, known: Collection[str]) -> Way:
        """The way to a node, counted as in use until it is given back.

        Args:
            node_id: of a node that publishes.
            known: all that do; unused ways to others are closed.
        """
        async with self._changing:
            for other in [one for name, one in self._ways.items() if name not in known]:
                if other.num_uses == 0:
                    del self._ways[other.node_id]
                    await other.close()
            way = self._ways.get(node_id)
            if way is None:
                way = Way(node_id, self._sockets.new(), self._aggregator, self._certificates)
                await way.open()
                self._ways[node_id] = way
            way.num_uses += 1  # last: one that is cancelled before counts for nothing
        return way

    async def close(self) -> None:
        """End every call."""
        async with self._changing:
            for way in self._ways.values():
                await way.close()
            self._ways.clear()
            self._sockets.close()
