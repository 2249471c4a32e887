"""The nodes that are joined right now, and those that were a while ago."""

import math
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cachetools import LRUCache

from fedattn.core.contexts import ContextSummary
from fedattn.core.errors import (
    DuplicateNodeError,
    InvalidRequestError,
    NodeBusyError,
    ProtocolMismatchError,
    UnknownParticipantError,
)
from fedattn.core.node_id import check_node_id
from fedattn.core.types import KvShape
from fedattn.wire.contexts import context_from_wire
from fedattn.wire.convert import require_range, shape_from_wire, sizes_from_wire
from fedattn.wire.protocol import MAX_NODE_KEY_SIZE, PROTOCOL_VERSION
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.departures import BROKEN, Departures
from services.aggregator.outbox import Outbox

_CONTROL_OUTBOX_BYTES = 1 << 20
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_MAX_CODECS = 64

_TellsContext = pb.Join | pb.Heartbeat | pb.InviteReply


@dataclass(slots=True, eq=False)
class Node:
    """A joined node and the way to it."""

    join: pb.Join
    shape: KvShape
    joined_at: float
    heard_at: float = 0.0  # its last heartbeat
    end_reason: str = ""  # why its membership ends, as far as the aggregator knows
    token: str = field(default_factory=lambda: secrets.token_hex(16))
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

    def send(self, message: pb.ControlResponse) -> None:
        """Queue a command; a node that reads none of them loses its membership."""
        if self.outbox.has_room(message.ByteSize()):
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
        self._num_changes = 0

    def join(self, message: pb.Join) -> Node:
        """Admit a node.

        Raises:
            ProtocolMismatchError: it speaks another version.
            InvalidRequestError: its message is not well-formed.
            DuplicateNodeError: a node of that id is joined.
            NodeBusyError: no more nodes fit.
        """
        if message.protocol_version != PROTOCOL_VERSION:
            raise ProtocolMismatchError(
                f"node {message.node_id[:64]!r} speaks protocol version "
                f"{message.protocol_version}, this aggregator {PROTOCOL_VERSION}; "
                f"upgrade the older one"
            )
        node_id = check_node_id(message.node_id)
        if not _FINGERPRINT.fullmatch(message.model_fingerprint):
            raise InvalidRequestError(
                f"node {node_id}: the model fingerprint must be 64 hex digits, "
                f"got {message.model_fingerprint[:80]!r}"
            )
        offered = message.capabilities
        require_range("max_positions", offered.max_positions, 1, 1 << 31)
        require_range("prefix_tokens", offered.prefix_tokens, 0, offered.max_positions)
        require_range("number of codecs", len(offered.codec_ids), 1, _MAX_CODECS)
        require_range("length of model_name", len(offered.model_name), 0, 200)
        require_range("length of software_version", len(offered.software_version), 0, 40)
        require_range("size of the node's key", message.key.ByteSize(), 0, MAX_NODE_KEY_SIZE)
        if node_id in self._nodes:
            raise DuplicateNodeError(
                f"a node {node_id!r} is joined already; give each node an id of its own, "
                f"or wait until the lost one is noticed"
            )
        if len(self._nodes) >= self._max_nodes:
            raise NodeBusyError(f"{self._max_nodes} nodes are joined, which is the limit here")
        shape = shape_from_wire(message.capabilities.shape)
        if offered.HasField("sizes"):
            sizes_from_wire(offered.sizes, shape)
        now = self._clock()
        node = Node(join=message, shape=shape, joined_at=now, heard_at=now)
        node.tell_context(message)
        self._nodes[node_id] = node
        self.departures.forget(node_id)
        return node

    def hear(self, node: Node) -> None:
        """A node lives."""
        node.heard_at = self._clock()

    def why_broken(self, node: Node) -> str:
        """What became of a node whose stream ended without a word of its own.

        The end of a killed process is there at once; a frozen one says nothing for a while, until
        something gives its connection up.
        """
        silent_s = self._clock() - node.heard_at
        if silent_s < self._silent_after_s:
            return BROKEN
        return f"it fell silent: no heartbeat for {silent_s:.0f} s, and its connection timed out"

    def leave(self, node: Node, reason: str = BROKEN) -> bool:
        """Remember a node as departed; False if that was done, though its id may be back."""
        if self._nodes.get(node.node_id) is not node:
            return False
        del self._nodes[node.node_id]
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
        if node is None or not secrets.compare_digest(node.token.encode(), node_token.encode()):
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

    def joined_for_s(self, node: Node) -> float:
        """Seconds since a node joined."""
        return self._clock() - node.joined_at
