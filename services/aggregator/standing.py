"""Which nodes let others wait of late, and for how long queries go without them."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from cachetools import LRUCache

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Record:
    failures: int  # in a row
    until: float
    reason: str


class Standing:
    """Pauses of nodes that failed, growing with each failure in a row. Lives on the event loop.

    Only what the aggregator saw itself is to be noted here, never what a member says of another. A
    node that leaves and joins again keeps its record.

    Args:
        max_nodes: so many are remembered, those noted last.
        first_pause_s: after one failure; each further one in a row doubles it.
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
        self._records: LRUCache[str, _Record] = LRUCache(max_nodes)

    def note_failure(self, node_id: str, reason: str) -> None:
        """A node let others wait; failures of sessions that ran at once count as one."""
        now, known = self._clock(), self._records.get(node_id)
        if known is not None and now < known.until:
            return
        failures = 1 if known is None else known.failures + 1
        doublings = min(failures - 1, 64)
        pause_s = min(self._first_pause_s * 2**doublings, self._max_pause_s)
        self._records[node_id] = _Record(failures, now + pause_s, reason)
        log.warning("node_paused", node=node_id, reason=reason, pause_s=pause_s, failures=failures)

    def note_good(self, node_id: str) -> None:
        """A node did its whole part in a session: all is forgiven, once its pause is over.

        Else a publisher that names it could clear the pause of a node it is in league with.
        """
        known = self._records.get(node_id)
        if known is not None and self._clock() >= known.until:
            del self._records[node_id]
            log.info("node_trusted_again", node=node_id)

    def pause_of(self, node_id: str) -> str:
        """Why and for how long queries go without a node; empty if they do not."""
        known = self._records.get(node_id)
        left_s = 0.0 if known is None else known.until - self._clock()
        if known is None or left_s <= 0:
            return ""
        return (
            f"{node_id} let others wait in an earlier session ({known.reason}); queries that do "
            f"not name it go without it for another {left_s:.0f} s"
        )
