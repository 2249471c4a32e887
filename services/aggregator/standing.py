"""Which nodes let others wait of late: those are invited last, and then for a while not at all."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from cachetools import LRUCache

from fedattn.core.report import NodeState

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of a node.

    Attributes:
        state: what follows from it.
        reason: of the last failure; empty if it is good.
        rests_for_s: time until it is asked again, seconds.
    """

    state: NodeState
    reason: str = ""
    rests_for_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Failures:
    num: int  # in a row
    at: float
    until: float  # it rests
    reason: str


class Standing:
    """Failures of nodes: after one a node is late, after more in a row it rests, longer each time.

    Lives on the event loop. Only what the aggregator saw itself is to be noted here, never what a
    member says of another. A node that leaves and joins again keeps its record.

    Args:
        max_nodes: so many are remembered, those noted last.
        first_pause_s: after two failures in a row; each further one doubles it.
        max_pause_s: the longest.
        clock: seconds since some moment.
    """

    def __init__(
        self,
        max_nodes: int,
        first_pause_s: float,
        max_pause_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first_pause_s, self._max_pause_s = first_pause_s, max_pause_s
        self._clock = clock
        self._known: LRUCache[str, _Failures] = LRUCache(max_nodes)

    def note_failure(self, node_id: str, reason: str, since: float) -> None:
        """A node let others wait.

        Args:
            node_id: of the node.
            reason: how.
            since: when that session began, by the clock; those that ran at once count as one.
        """
        now, known = self._clock(), self._known.get(node_id)
        if known is not None and (since <= known.at or now < known.until):
            return
        num = 1 if known is None else known.num + 1
        doublings = min(num - 2, 64)
        pause_s = min(self._first_pause_s * 2**doublings, self._max_pause_s) if num > 1 else 0.0
        self._known[node_id] = _Failures(num, now, now + pause_s, reason)
        log.warning("node_late", node=node_id, reason=reason, failures=num, rests_for_s=pause_s)

    def note_good(self, node_id: str) -> None:
        """A node did its whole part in a session: all is forgiven, once its pause is over.

        Else a publisher that names it could clear the pause of a node it is in league with.
        """
        known = self._known.get(node_id)
        if known is not None and self._clock() >= known.until:
            del self._known[node_id]
            log.info("node_trusted_again", node=node_id)

    def is_late(self, node_id: str) -> bool:
        """Whether a node failed the last time, and is to be asked after all others."""
        return node_id in self._known

    def of(self, node_id: str) -> Record:
        """What is remembered of a node."""
        known = self._known.get(node_id)
        if known is None:
            return Record(NodeState.GOOD)
        left_s = known.until - self._clock()
        if left_s <= 0:
            return Record(NodeState.LATE, known.reason)
        return Record(NodeState.RESTING, known.reason, left_s)

    def pause_of(self, node_id: str) -> str:
        """Why and for how long queries go without a node; empty if they do not."""
        record = self.of(node_id)
        if record.state is not NodeState.RESTING:
            return ""
        return (
            f"{node_id} let others wait in earlier sessions ({record.reason}); queries that do "
            f"not name it go without it for another {record.rests_for_s:.0f} s"
        )
