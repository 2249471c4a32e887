"""The nodes that are joined right now, and those that were a while ago."""

import hashlib
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cachetools import LRUCache

from fedattn.core.contexts import ContextSummary
from fedattn.core.errors import (
    DuplicateNodeError,
    NodeBusyError,
    UnknownParticipantError,
)
from fedattn.core.types import KvShape
from fedattn.wire.contexts import context_from_wire
from fedattn.wire.convert import require_range
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import federation_pb2
from services.aggregator.departures import BROKEN, Departures
from services.aggregator.joining import check_join
from services.aggregator.outbox import Outbox
from services.aggregator.peer import Peer

_CONTROL_OUTBOX_BYTES = 1 << 20
MAX_FAR_NODES = 100_000
"""Nodes that are joined at other aggregators."""
_DIGEST_SIZE = 32
_MAX_JOINED_S = 1e10

_TellsContext = pb.Join | pb.Heartbeat | pb.InviteReply
SendsAway = Callable[["Node", pb.ControlResponse], None]
"""Sends a command to a node that is joined at another aggregator."""


@dataclass(slots=True, eq=False)
class Node:
    """A joined node and the way to it.

    Attributes:
        home: aggregator that it is joined at; None for this one.
        token_digest: SHA-256 of the token that proves a caller to be this node.
    """

    join: pb.Join
    shape: KvShape
    joined_at: float
    token_digest: bytes = b""
    heard_at: float = 0.0  # its last heartbeat
    end_reason: str = ""  # why its membership ends, as far as the aggregator knows
    home: Peer | None = None
    send_away: SendsAway | None = None
    active_sessions: int = 0
    health: pb.Health | None = None  # by its last heartbeat
    context: ContextSummary | None = None  # by its last word
    outbox: Outbox[pb.ControlResponse] = field(
        default_factory=lambda: Outbox(_CONTROL_OUTBOX_BYTES)
    )

    @property
    def node_id(self) -> str:
        return self.join.node_id

    @property
    def fingerprint(self) -> str:
        return self.join.model_fingerprint

    def as_departed(self) -> "Node":
        """What is remembered of it: all but its key and commands, so a kilobyte or two."""
        join = pb.Join()
        join.CopyFrom(self.join)
        join.ClearField("key")
        return replace(self, join=join, send_away=None, outbox=Outbox(0))

    def send(self, message: pb.ControlResponse) -> None:
        """Queue a command; a node that reads none of them loses its membership."""
        if self.send_away is not None:
            self.send_away(self, message)
        elif self.outbox.has_room(message.ByteSize()):
            self.outbox.push(message, message.ByteSize())
        else:
            self.end("it took none of its commands")

    def end(self, reason: str = "") -> None:
        """End its membership; the first reason counts."""
        self.end_reason = self.end_reason or reason
        self.outbox.discard()

    def on_heartbeat(self, heartbeat: pb.Heartbeat) -> None:
        """Take what the node says of itself.

        Raises:
            InvalidRequestError: a number is out of range.
        """
        heartbeat.DiscardUnknownFields()  # it is kept, and told to others
        self.active_sessions = heartbeat.active_sessions
        self.tell_context(heartbeat)
        if not heartbeat.HasField("health"):
            self.health = None
            return
        health = heartbeat.health
        require_range("pressure", health.pressure, pb.PRESSURE_NONE, pb.PRESSURE_CRITICAL)
        require_range("memory_free", health.memory_free, 0, 1)
        require_range("temperature_c", health.temperature_c, 0, 1000)
        self.health = health

    def tell_context(self, message: _TellsContext) -> None:
        """Take what the node says of its private context, if it does.

        Raises:
            InvalidRequestError: it contradicts itself.
        """
        if message.HasField("context"):
            self.context = context_from_wire(message.context)

    def take_entry(self, entry: federation_pb2.NodeEntry) -> None:
        """Take what its aggregator says of it.

        Raises:
            InvalidRequestError: a number is out of range.
        """
        health = entry.health if entry.HasField("health") else None
        said = pb.Heartbeat(active_sessions=entry.active_sessions, health=health)
        if entry.join.HasField("context"):
            said.context.CopyFrom(entry.join.context)
        self.on_heartbeat(said)

    def supports(self, codec_id: int) -> bool:
        return codec_id in self.join.capabilities.codec_ids


class NodeRegistry:
    """Nodes by id.

    Args:
        max_nodes: so many at once, and so many departures.
        silent_after_s: without a word of it, a node whose connection ends had fallen silent before.
        clock: seconds since some moment.

    Attributes:
        departures: who left within the last hour.
    """

    def __init__(
        self,
        max_nodes: int,
        silent_after_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_nodes = max_nodes
        self._silent_after_s = silent_after_s
        self._clock = clock
        self.departures = Departures(max_nodes, clock)
        self._nodes: dict[str, Node] = {}
        self._versions: LRUCache[str, tuple[bytes, int]] = LRUCache(2 * max_nodes)
        self._num_changes = self._num_far = 0

    def join(self, message: pb.Join, token: str = "") -> Node:
        """Admit a node here, from wherever it was before.

        Args:
            message: how it introduces itself.
            token: will prove a caller to be this node.

        Raises:
            ProtocolMismatchError: it speaks another version.
            InvalidRequestError: its message is not well-formed.
            DuplicateNodeError: a node of that id is joined here.
            NodeBusyError: no more nodes fit.
        """
        shape = check_join(message)
        node_id, here = message.node_id, len(self._nodes) - self._num_far
        known = self._nodes.get(node_id)
        if known is not None and known.home is None:
            raise DuplicateNodeError(
                f"a node {node_id!r} is joined already; give each node an id of its own, "
                f"or wait until the lost one is noticed"
            )
        if here >= self._max_nodes:
            raise NodeBusyError(f"{self._max_nodes} nodes are joined, which is the limit here")
        digest = hashlib.sha256(token.encode()).digest()
        node = Node(join=message, shape=shape, joined_at=self._clock(), token_digest=digest)
        node.tell_context(message)
        self._put(node)
        return node

    def join_far(
        self, home: Peer, entry: federation_pb2.NodeEntry, send_away: SendsAway
    ) -> tuple[Node, Node | None]:
        """Know a node that is joined at another aggregator, or that has changed there.

        Returns:
            The node, and whom it replaces: another membership of that id, here or elsewhere.

        Raises:
            ProtocolMismatchError, InvalidRequestError: as `join`.
            NodeBusyError: no more nodes fit.
        """
        shape = check_join(entry.join)
        require_range("size of token_digest", len(entry.token_digest), _DIGEST_SIZE, _DIGEST_SIZE)
        require_range("joined_for_s", entry.joined_for_s, 0, _MAX_JOINED_S)
        known = self._nodes.get(entry.join.node_id)
        is_known = known is not None and (known.home, known.token_digest) == (
            home,
            entry.token_digest,
        )
        if is_known and known is not None:
            known.take_entry(entry)
            self.hear(known)
            return known, None
        if self._num_far >= MAX_FAR_NODES:
            raise NodeBusyError(f"{MAX_FAR_NODES} nodes are joined elsewhere, the limit here")
        node = Node(
            join=entry.join,
            shape=shape,
            joined_at=self._clock() - entry.joined_for_s,
            token_digest=entry.token_digest,
            home=home,
            send_away=send_away,
        )
        node.take_entry(entry)
        self._put(node)
        return node, known

    def _put(self, node: Node) -> None:
        """Know a node, and no other one of its id any more."""
        known = self._nodes.get(node.node_id)
        if known is not None:
            self.leave(known)
        self._nodes[node.node_id] = node
        self._num_far += node.home is not None
        self.departures.forget(node.node_id)
        self.hear(node)

    def hear(self, node: Node) -> None:
        """A node lives."""
        node.heard_at = self._clock()

    def why_broken(self, node: Node) -> str:
        """What became of a node whose stream ended without a word of its own.

        The end of a killed process is there at once; a frozen one says nothing for a while, until
        something gives its connection up.
        """
        silent_s = self._clock() - node.heard_at
        is_far = node.home is not None  # whose heartbeats are heard there
        if is_far or silent_s < self._silent_after_s:
            return BROKEN
        return f"it fell silent: no heartbeat for {silent_s:.0f} s, and its connection timed out"

    def leave(self, node: Node, reason: str = BROKEN) -> bool:
        """Remember a node as departed; False if that was done, though its id may be back."""
        if self._nodes.get(node.node_id) is not node:
            return False
        del self._nodes[node.node_id]
        self._num_far -= node.home is not None
        self.departures.note(node, reason)
        return True

    def find(self, node_id: str) -> Node | None:
        return self._nodes.get(node_id)

    def authenticate(self, node_id: str, node_token: str) -> Node:
        """The joined node that says it is this one.

        Raises:
            UnknownParticipantError: it is not joined, or the token is not its own.
        """
        node = self._nodes.get(node_id)
        digest = hashlib.sha256(node_token.encode()).digest()
        if node is None or not secrets.compare_digest(node.token_digest, digest):
            raise UnknownParticipantError(
                f"node {node_id[:64]!r} is not joined here, or the caller is not that node; wait "
                f"until it has joined again"
            )
        return node

    def note_version(self, node_id: str, version: bytes) -> None:
        """A node said which version its context has."""
        known = self._versions.get(node_id)
        if known is None:
            self._versions[node_id] = (version, 0)
        elif known[0] != version:
            self._num_changes += 1
            self._versions[node_id] = (version, self._num_changes)

    def changed_at(self, node_id: str) -> tuple[int, str]:
        """Sorts nodes by when their context changed last, those that never did first, by id."""
        return (self._versions[node_id][1], node_id)

    def all(self) -> list[Node]:
        """All joined nodes, by id."""
        return [self._nodes[node_id] for node_id in sorted(self._nodes)]

    def here(self) -> list[Node]:
        """Those that are joined at this aggregator, by id."""
        return [node for node in self.all() if node.home is None]

    def joined_for_s(self, node: Node) -> float:
        """Seconds since a node joined."""
        return self._clock() - node.joined_at
