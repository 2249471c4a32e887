"""Nodes that left within the last hour, when, and why."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachetools import TTLCache

from fedattn.core.errors import ParticipantDepartedError

if TYPE_CHECKING:
    from services.aggregator.registry import Node

REMEMBERED_S = 3600.0
GOODBYE = "it said goodbye"
BROKEN = "its connection broke"


@dataclass(frozen=True, slots=True)
class Departure:
    """A node that left.

    Attributes:
        node: as it was then, without its key.
        left_at: when, by the clock of the registry.
        reason: why, in words that follow the name of the node.
    """

    node: "Node"
    left_at: float
    reason: str


class Departures:
    """Remembers who left, for an hour and until the node is back. Lives on the event loop.

    Args:
        max_nodes: so many are remembered, those that left last.
        clock: seconds since some moment.
    """

    def __init__(self, max_nodes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_id: TTLCache[str, Departure] = TTLCache(max_nodes, REMEMBERED_S, clock)

    def note(self, node: "Node", reason: str) -> None:
        """A node has left."""
        self._by_id[node.node_id] = Departure(node.as_departed(), self._clock(), reason)

    def forget(self, node_id: str) -> None:
        """It is back."""
        self._by_id.pop(node_id, None)

    def all(self) -> list[Departure]:
        """The latest first."""
        self._by_id.expire()
        return sorted(self._by_id.values(), key=lambda one: -one.left_at)

    def left_for_s(self, departure: Departure) -> float:
        """Seconds since a node left."""
        return self._clock() - departure.left_at

    def error_of(self, node_id: str) -> ParticipantDepartedError | None:
        """When a node left and why, if it did of late."""
        departure = self._by_id.get(node_id)
        if departure is None:
            return None
        ago = _in_words(self.left_for_s(departure))
        return ParticipantDepartedError(
            f"{node_id}: left {ago} ago; {departure.reason}", lost=(node_id,)
        )


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
