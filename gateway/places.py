"""Places of the queries that run at once, shared fairly."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cachetools import LRUCache

from fedattn.core.errors import NodeBusyError, RateLimitedError, UnavailableError
from fedattn.core.fair_places import Place
from gateway.callers import Caller
from gateway.limits import QueryLimits

_Holder = tuple[str, str]

_MAX_LEARNED = 10_000
"""Publishers, and subjects at them, whose refusals are remembered; the oldest are forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Who wants a place, and where.

    Attributes:
        caller: who asks.
        publisher: node that is asked.
        subject: for whom, as nodes are told; empty if they are not.
        is_background: whether it is one of the caller's background queries.
    """

    caller: Caller
    publisher: str
    subject: str = ""
    is_background: bool = False


class Places:
    """How many queries run, whose they are, and where.

    One subject holds at most half of all places, rounded up. So does one publisher while there are
    several: one that hangs leaves room for the others.

    What nodes take at once, only they know. A publisher gets no more than ran there when it last
    refused one, and so does a subject at it: nodes share their places among subjects too. A whole
    round of answers allows one more.

    Args:
        limits: how many there are.
        count_publishers: how many publishers there are now.
    """

    def __init__(self, limits: QueryLimits, count_publishers: Callable[[], int]) -> None:
        self._num_places = limits.at_once
        self._half = (limits.at_once + 1) // 2
        self._count_publishers = count_publishers
        self._background_at_once = limits.background_at_once
        self._held: Counter[_Holder] = Counter()
        self._learned: LRUCache[_Holder, float] = LRUCache(_MAX_LEARNED)
        self._num_taken = 0

    @property
    def num_taken(self) -> int:
        return self._num_taken

    def num_at(self, publisher: str) -> int:
        """Places held by queries to one publisher."""
        return self._held[_publisher(publisher)]

    def refusal(self, ask: Ask) -> UnavailableError | None:
        """Why there is no place just now; None if there is one."""
        if self._num_taken >= self._num_places:
            return NodeBusyError(
                f"the gateway runs {self._num_taken} queries, its limit; try again shortly, "
                f"or raise FEDATTN_GATEWAY_MAX_CONCURRENT_QUERIES"
            )
        for (kind, name), most in self._shares(ask):
            if self._held[kind, name] >= most:
                return RateLimitedError(
                    f"{kind} {name} has {most} queries running, its share; wait for one to end"
                )
        return None

    def take(self, ask: Ask) -> Place:
        """Take a place.

        Raises:
            NodeBusyError: none is free.
            RateLimitedError: the caller, or the publisher, has its share.
        """
        refusal = self.refusal(ask)
        if refusal is not None:
            raise refusal
        holders = [holder for holder, _ in self._shares(ask)]
        self._held.update(holders)
        self._num_taken += 1

        def give_back() -> None:
            self._held.subtract(holders)
            self._held += Counter()  # forgets those at 0
            self._num_taken -= 1

        return Place(give_back)

    def note_refused(self, ask: Ask) -> None:
        """A node had no place for a query, which holds none here any more.

        If others of its subject run there, the share of the subject is taken to be the reason.
        """
        at = _subject_at(ask)
        holder = at if ask.subject and self._held[at] else _publisher(ask.publisher)
        self._learned[holder] = max(1, self._held[holder])

    def note_answered(self, ask: Ask) -> None:
        """A query was answered, and still holds its place."""
        for holder in (_publisher(ask.publisher), _subject_at(ask)):
            most = self._learned.get(holder)
            if most is not None and self._held[holder] >= int(most):
                self._learned[holder] = min(most + 1 / most, self._num_places)

    def _shares(self, ask: Ask) -> Iterator[tuple[_Holder, int]]:
        """Whom a query counts for, and the most each may have."""
        caller = ask.caller
        if caller.limits is not None:
            yield ("account", caller.account), caller.limits.max_concurrent
        if ask.is_background:
            yield ("background of", caller.account), self._background_at_once
        if caller.subject:
            yield ("subject", caller.subject), self._half
        most = self._half if self._count_publishers() > 1 else self._num_places
        for holder in (_publisher(ask.publisher), _subject_at(ask)):
            yield holder, min(most, int(self._learned.get(holder, most)))


def _publisher(node_id: str) -> _Holder:
    return "publisher", node_id


def _subject_at(ask: Ask) -> _Holder:
    return "subject at publisher", f"{ask.subject}@{ask.publisher}"
