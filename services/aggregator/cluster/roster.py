"""The directory of a federation as one aggregator reads it: who else lives, who is joined there."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from google.protobuf.message import DecodeError

from fedattn.core.errors import FedAttnError
from fedattn.core.node_id import check_name, check_node_id
from fedattn.wire.convert import require_range
from fedattn.wire.protocol import PROTOCOL_VERSION
from fedattn.wire.texts import clean_texts
from fedattn.wire.v1.federation_pb2 import AggregatorLease, NodeEntry
from services.aggregator.federation import Told
from services.aggregator.peer import MAX_PEERS, Peer
from services.aggregator.registry import MAX_FAR_NODES

log = structlog.get_logger(__name__)

_FORGET_S = 120.0
"""What a dead aggregator wrote is forgotten after so long; its leases may only have been late."""
_AGGREGATOR, _NODE = "aggregator", "node"
MAX_VALUE_SIZE = 64 << 10
"""Bytes of one value: a node's entry with its key and certificates is a third of it at most."""


def lease_key(name: str) -> str:
    """Key of an aggregator's lease."""
    return f"{_AGGREGATOR}.{name}"


def entry_key(name: str, node_id: str) -> str:
    """Key of a node that is joined there; ids may hold what keys may not."""
    return f"{_NODE}.{name}.{node_id.encode().hex()}"


@dataclass(slots=True)
class _Known:
    """One other aggregator, living or not."""

    until: float
    peer: Peer | None = None
    epoch: str = ""
    is_living: bool = False
    entries: dict[str, NodeEntry] = field(default_factory=dict)

    def counts(self, entry: NodeEntry) -> bool:
        return self.is_living and entry.epoch == self.epoch


class Roster:
    """Takes keys and values as they come, in any order. Lives on the event loop.

    An aggregator lives for as long as its lease is written anew, by this one's clock. Its entries
    count while it lives, if they bear the epoch of its lease.

    Args:
        own: name of the aggregator that reads.
        lease_s: silence that ends an aggregator, seconds.
        clock: seconds since some moment.

    Attributes:
        told: what comes of it; set before the first key is taken.
    """

    def __init__(
        self, own: str, lease_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.told: Told
        self._own, self._lease_s, self._clock = own, lease_s, clock
        self._known: dict[str, _Known] = {}
        self._num_entries = 0

    def living(self) -> list[Peer]:
        """The other aggregators that live."""
        return [one.peer for one in self._known.values() if one.is_living and one.peer is not None]

    def find(self, name: str) -> Peer | None:
        """Another aggregator, if it lives."""
        known = self._known.get(name)
        return known.peer if known is not None and known.is_living else None

    def take(self, key: str, value: bytes | None) -> None:
        """A key was written, or deleted; what is not well-formed is dropped."""
        kind, _, rest = key.partition(".")
        name, _, node = rest.partition(".")
        if name == self._own:
            return
        try:
            require_range("size", 0 if value is None else len(value), 0, MAX_VALUE_SIZE)
            check_name(name)
            if kind == _AGGREGATOR and not node:
                self._take_lease(name, value)
            elif kind == _NODE:
                self._take_entry(name, bytes.fromhex(node).decode(), value)
            else:
                log.warning("key_dropped", key=key[:200])
        except (FedAttnError, ValueError, DecodeError) as error:  # UnicodeDecodeError is one
            log.warning("key_dropped", key=key[:200], error=str(error)[:200])

    def _take_lease(self, name: str, value: bytes | None) -> None:
        if value is None:
            if (known := self._known.get(name)) is not None:
                self._lose(known)
            return
        lease = AggregatorLease.FromString(value)
        if lease.protocol_version != PROTOCOL_VERSION:
            raise ValueError(
                f"it speaks protocol version {lease.protocol_version}, this one "
                f"{PROTOCOL_VERSION}; upgrade the older one"
            )
        peer = Peer.from_wire(lease.aggregator)
        if peer.name != name:
            raise ValueError(f"it calls itself {peer.name!r}")
        known = self._know(name)
        if (known.epoch, known.peer) != (lease.epoch, peer):
            self._lose(known)
            self._drop_entries(known, but_of=lease.epoch)
        known.peer, known.epoch, known.until = peer, lease.epoch, self._clock() + self._lease_s
        if not known.is_living:
            known.is_living = True
            log.info("aggregator_seen", name=name, address=peer.address)
            for entry in list(known.entries.values()):
                if known.counts(entry):
                    self.told.seen(peer, entry)

    def _take_entry(self, name: str, node_id: str, value: bytes | None) -> None:
        check_node_id(node_id)
        known = self._know(name)
        if value is None:
            entry = known.entries.pop(node_id, None)
            if entry is not None:
                self._num_entries -= 1
                if known.counts(entry) and known.peer is not None:
                    self.told.gone(known.peer, node_id)
            return
        entry = clean_texts(NodeEntry.FromString(value))
        if entry.aggregator != name or entry.join.node_id != node_id:
            raise ValueError("the entry is of another node")
        if node_id not in known.entries:
            if self._num_entries >= MAX_FAR_NODES:
                raise ValueError(f"{MAX_FAR_NODES} nodes are known elsewhere, the limit here")
            self._num_entries += 1
        known.entries[node_id] = entry
        if known.counts(entry) and known.peer is not None:
            self.told.seen(known.peer, entry)

    def _drop_entries(self, known: _Known, but_of: str) -> None:
        """Forget what an aggregator wrote in earlier epochs: it takes nothing of it back."""
        kept = {key: entry for key, entry in known.entries.items() if entry.epoch == but_of}
        self._num_entries -= len(known.entries) - len(kept)
        known.entries = kept

    def _know(self, name: str) -> _Known:
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= MAX_PEERS - 1:
                raise ValueError(f"{MAX_PEERS} aggregators are known, the limit here")
            known = self._known[name] = _Known(until=self._clock())
        return known

    def look(self) -> None:
        """Lose those whose lease has run out, and forget those that it had long ago."""
        now = self._clock()
        for name, known in list(self._known.items()):
            if now >= known.until:
                self._lose(known)
            if now >= known.until + _FORGET_S:
                self._num_entries -= len(known.entries)
                del self._known[name]

    def forget(self) -> None:
        """Nobody can be heard: lose all, and what they wrote."""
        for known in self._known.values():
            self._lose(known)
        self._known.clear()
        self._num_entries = 0

    def _lose(self, known: _Known) -> None:
        if not known.is_living or known.peer is None:
            return
        known.is_living = False
        log.warning("aggregator_lost", name=known.peer.name, address=known.peer.address)
        self.told.lost(known.peer)
