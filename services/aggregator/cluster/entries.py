"""Which nodes that are joined here have to be written to the directory, and what."""

import asyncio
import time
from collections.abc import Callable

from fedattn.wire.contexts import context_to_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1.federation_pb2 import NodeEntry
from services.aggregator.registry import Node

REFRESH_S = 20.0
"""An entry that has not changed is written anew so often; it is forgotten after thrice that."""
KEPT_S = 3 * REFRESH_S


class Entries:
    """What is to be written, the latest of each node. Lives on the event loop.

    Args:
        clock: seconds since some moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[str, Node | None] = {}
        self._written: dict[str, tuple[Node, bytes, float]] = {}
        self._is_due = asyncio.Event()

    def note(self, node: Node) -> None:
        """A node has joined or spoken; it is due if others would choose differently by now."""
        mark, known = _mark(node), self._written.get(node.node_id)
        if known is None or known[1] != mark:
            self._schedule(node, mark)

    def refresh(self) -> None:
        """Those that were written long ago are due, so that the directory does not forget them."""
        now = self._clock()
        for node, mark, written_at in list(self._written.values()):
            if now - written_at >= REFRESH_S:
                self._schedule(node, mark)

    def _schedule(self, node: Node, mark: bytes) -> None:
        self._written[node.node_id] = (node, mark, self._clock())
        self._due[node.node_id] = node
        self._is_due.set()

    def drop(self, node_id: str) -> None:
        """A node has left."""
        self._written.pop(node_id, None)
        self._due[node_id] = None
        self._is_due.set()

    def reset(self) -> None:
        """Nothing has been written where this aggregator writes now."""
        self._due.clear()
        self._written.clear()

    async def wait(self) -> None:
        """Until something is due."""
        await self._is_due.wait()

    def take(self) -> dict[str, Node | None]:
        """All that are due, by id; None for one that has left."""
        self._is_due.clear()
        due, self._due = self._due, {}
        return due


def _mark(node: Node) -> bytes:
    """What others go by; numbers that change with every heartbeat are left out."""
    pressure = pb.PRESSURE_UNSPECIFIED if node.health is None else node.health.pressure
    context = b"" if node.context is None else context_to_wire(node.context).SerializeToString()
    return node.token_digest + bytes([pressure]) + context


def entry_of(node: Node, name: str, epoch: str) -> bytes:
    """The value of a node's key."""
    join = pb.Join()
    join.CopyFrom(node.join)
    if node.context is not None:
        join.context.CopyFrom(context_to_wire(node.context))
    entry = NodeEntry(
        aggregator=name,
        epoch=epoch,
        join=join,
        token_digest=node.token_digest,
        active_sessions=node.active_sessions,
        health=node.health,
        joined_for_s=max(0.0, time.monotonic() - node.joined_at),
    )
    return entry.SerializeToString()
