"""How many sessions one publisher may open, at once and in an hour."""

import time
from collections import deque
from collections.abc import Callable

from cachetools import LRUCache

from fedattn.core.errors import NodeBusyError
from fedattn.core.fair_places import FairPlaces, Place
from fedattn.core.request import SessionRequest
from services.aggregator.settings import AggregatorSettings

_HOUR_S = 3600.0


class Quotas:
    """Lets publishers open sessions, or says when to try again. Lives on the event loop.

    Args:
        settings: of the aggregator.
        clock: seconds since some moment.
    """

    def __init__(
        self, settings: AggregatorSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._at_once = settings.max_sessions_per_node
        self._places = FairPlaces("this aggregator", settings.max_sessions, self._at_once)
        self._per_hour = settings.max_sessions_per_node_per_hour
        self._begun: LRUCache[str, deque[float]] = LRUCache(2 * settings.max_nodes)
        self._ends: dict[str, list[float]] = {}

    def take(self, request: SessionRequest) -> Place:
        """A place for the session that a publisher asks for; the publisher has proved itself.

        Raises:
            NodeBusyError: this one must wait; says until when.
            RateLimitedError: it, or its subject, has its share of the places.
        """
        publisher, now = request.node_id, self._clock()
        self._check_at_once(publisher, now)
        begun = self._check_hour(publisher, now)
        place = self._places.take(publisher, request.options.subject)
        begun.append(now)
        end = now + request.options.deadline_s
        self._ends.setdefault(publisher, []).append(end)

        def give_back() -> None:
            place.release()
            self._ends[publisher].remove(end)
            if not self._ends[publisher]:
                del self._ends[publisher]

        return Place(give_back)

    def has_others(self, publisher: str) -> bool:
        """Whether a publisher has a session besides one, that are open or being opened."""
        return len(self._ends.get(publisher, ())) > 1

    def _check_at_once(self, publisher: str, now: float) -> None:
        ends = self._ends.get(publisher, [])
        if len(ends) >= self._at_once:
            raise NodeBusyError(
                f"{publisher} has {len(ends)} sessions open, which is the limit for one node; try "
                f"again when one of them has ended, in {max(0.0, min(ends) - now):.0f} s at most"
            )

    def _check_hour(self, publisher: str, now: float) -> deque[float]:
        """When its sessions of the last hour began."""
        begun = self._begun.setdefault(publisher, deque())
        while begun and begun[0] <= now - _HOUR_S:
            begun.popleft()
        if len(begun) >= self._per_hour:
            raise NodeBusyError(
                f"{publisher} has opened {len(begun)} sessions within an hour, which is the limit "
                f"for one node; try again in {begun[0] + _HOUR_S - now:.0f} s"
            )
        return begun
