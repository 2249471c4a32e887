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
        certificates: what the gateway proves itself with; None for plaintext.
    """

    def __init__(self, certificates: OwnCertificates | None) -> None:
        self._certificates = certificates
        self._sockets = SocketFolder()
        self._ways: dict[tuple[str, str], Way] = {}
        self._changing = asyncio.Lock()

    async def take(self, node_id: str, aggregator: AggregatorClient, known: Collection[str]) -> Way:
        """The way to a node, counted as in use until it is given back.

        Args:
            node_id: of a node that publishes.
            aggregator: that it is joined at, and that carries the connections.
            known: all that do; unused ways to others, and through other aggregators, are closed.
        """
        key = (node_id, aggregator.address)
        async with self._changing:
            for other, one in list(self._ways.items()):
                is_old = other[0] not in known or (other[0] == node_id and other != key)
                if is_old and one.num_uses == 0:
                    del self._ways[other]
                    await one.close()
            way = self._ways.get(key)
            if way is None:
                way = Way(node_id, self._sockets.new(), aggregator, self._certificates)
                await way.open()
                self._ways[key] = way
            way.num_uses += 1  # last: one that is cancelled before counts for nothing
        return way

    async def close(self) -> None:
        """End every call."""
        async with self._changing:
            for way in self._ways.values():
                await way.close()
            self._ways.clear()
            self._sockets.close()
