"""The aggregators of one federation, as one of them knows the others: the port and who is alone."""

from collections.abc import Collection
from typing import Protocol

from fedattn.core.rendezvous import highest
from fedattn.wire.v1 import federation_pb2
from services.aggregator.peer import Peer
from services.aggregator.registry import Node


class Told(Protocol):
    """What is told of the other aggregators; nothing of it blocks."""

    def seen(self, peer: Peer, entry: federation_pb2.NodeEntry) -> None:
        """A node is joined there, or has changed; nothing of the entry has been checked."""

    def gone(self, peer: Peer, node_id: str) -> None:
        """A node has left there."""

    def lost(self, peer: Peer) -> None:
        """An aggregator cannot be heard any more, nor can all its nodes."""

    def receive(self, letter: federation_pb2.Letter) -> None:
        """A living aggregator wrote; nothing of the letter but its sender has been checked."""

    def holds(self, node_id: str) -> bool:
        """Whether a node is joined here."""

    def joined(self) -> Collection[Node]:
        """All nodes that are joined here."""


class Federation(Protocol):
    """The other aggregators; all of it but `close` and `asks` returns at once."""

    own: Peer

    async def begin(self, told: Told) -> None:
        """Be one of them from now on."""

    def living(self) -> tuple[Peer, ...]:
        """This one, if it takes sessions, and the others that live; by name."""

    def announce(self, node: Node) -> None:
        """A node has joined here, or has changed."""

    def withdraw(self, node: Node) -> None:
        """A node has left here."""

    def write(self, receiver: str, letter: federation_pb2.Letter) -> None:
        """Send a letter; what cannot arrive is lost, and its receiver soon found gone."""

    async def asks(self, peer: Peer, node_id: str) -> bool:
        """Whether another aggregator says that a node is joined there; False if it says nothing."""

    async def retire(self) -> None:
        """Take no more sessions: the others go on without this one."""

    async def close(self) -> None:
        """Be one of them no more."""


class Alone:
    """A federation of one aggregator."""

    def __init__(self) -> None:
        self.own = Peer("aggregator", "")

    async def begin(self, told: Told) -> None:
        """There is nobody to hear."""

    def living(self) -> tuple[Peer, ...]:
        return (self.own,)

    def announce(self, node: Node) -> None:
        """Nobody is to be told."""

    def withdraw(self, node: Node) -> None:
        """Nobody is to be told."""

    def write(self, receiver: str, letter: federation_pb2.Letter) -> None:
        raise AssertionError("there is no other aggregator")

    async def asks(self, peer: Peer, node_id: str) -> bool:
        raise AssertionError("there is no other aggregator")

    async def retire(self) -> None:
        """Nobody is to be told."""

    async def close(self) -> None:
        """Nobody is to be told."""


def server_of(key: bytes, federation: Federation, without: Collection[str] = ()) -> Peer:
    """The aggregator that serves a session, the same whichever of them is asked.

    Args:
        key: of the session, the digest of its request.
        federation: whose aggregators.
        without: names of those that the publisher cannot reach.
    """
    peers = {one.name: one for one in federation.living() if one.name not in without}
    return peers[highest(key, peers)] if peers else federation.own
