"""The line of queries that wait for a place."""

import asyncio
import time
from bisect import insort
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count, zip_longest

from cachetools import LRUCache

from fedattn.core.errors import NodeBusyError, RateLimitedError
from gateway.durations import Durations
from gateway.limits import QueryLimits
from gateway.metrics import GatewayMetrics
from gateway.places import Ask, Places
from gateway.waiting import Standing, Waiter

FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 15.0
"""Pause of a publisher that refused a query while none of ours ran there; it doubles."""
_MAX_PAUSED = 1000

Later = Callable[[float, Callable[[], None]], object]
"""Has something done after so many seconds."""


class Line:
    """Gives places to those who wait: subjects in turns, and one's own queries as they came.

    One for which there is a place never waits for one before it that wants another publisher.
    Not for several threads.

    Args:
        places: what they wait for.
        limits: how many may wait.
        metrics: told who waits, and how long.
        clock: seconds since some moment.
        later: sees to it that a publisher that refuses is asked again.
    """

    def __init__(
        self,
        places: Places,
        limits: QueryLimits,
        metrics: GatewayMetrics,
        clock: Callable[[], float] = time.monotonic,
        later: Later = lambda after_s, do: asyncio.get_running_loop().call_later(after_s, do),
    ) -> None:
        self._places, self._limits, self._metrics = places, limits, metrics
        self._clock, self._later = clock, later
        self._durations = Durations()
        self._numbers = count()
        self._waiting: dict[str, list[Waiter]] = {}  # by subject, whose turn is first comes first
        self._pauses: LRUCache[str, float] = LRUCache(_MAX_PAUSED)
        self._paused: set[str] = set()
        metrics.waiting.set_function(lambda: len(self._in_order()))

    def join(self, ask: Ask, wait_s: float) -> Waiter:
        """Take a place, or wait for one. Whoever joins leaves, once.

        Args:
            ask: what is wanted.
            wait_s: longest wait that is of use, seconds.

        Raises:
            NodeBusyError, RateLimitedError: it would wait for longer, or the line is full; says
                when to come again, as far as times were measured.
        """
        waiter = Waiter(ask, next(self._numbers), self._clock())
        self._add(waiter)
        self._dispatch()
        if waiter.place is not None:
            waiter.granted_at = waiter.joined_at  # it has not waited
        try:
            self._check(waiter, wait_s)
        except (NodeBusyError, RateLimitedError):
            self.leave(waiter)
            raise
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Go, with a place or without."""
        if waiter.place is not None:
            waiter.place.release()
        else:
            self._remove(waiter)
        self._dispatch()

    def put_back(self, waiter: Waiter) -> None:
        """A node refused it: it gives its place back, and is the first to get the next one.

        If none of ours runs there, the others go before it: what it lacks may be its own matter,
        such as a place at a contributor that it names.
        """
        self._give_back(waiter)
        publisher = waiter.ask.publisher
        if self._places.num_at(publisher):
            self._add_first(waiter)
        else:
            waiter.number = next(self._numbers)
            self._add(waiter)
            self._pause(publisher)  # none of ours ends there and makes room
        self._places.note_refused(waiter.ask)
        self._metrics.put_back.inc()
        self._dispatch()

    def move(self, waiter: Waiter, publisher: str) -> None:
        """What it asked failed, and is asked again there: its place lasts, or is the next one."""
        if publisher == waiter.ask.publisher:
            waiter.granted_at = self._clock()
            return
        self._give_back(waiter)
        waiter.ask = replace(waiter.ask, publisher=publisher)
        self._add_first(waiter)
        self._dispatch()

    def note_answered(self, waiter: Waiter) -> None:
        """It was answered, and leaves next."""
        publisher = waiter.ask.publisher
        self._durations.add(publisher, self.held_s(waiter))
        self._places.note_answered(waiter.ask)
        self._pauses.pop(publisher, None)

    def waited_s(self, waiter: Waiter) -> float:
        """Seconds since it came."""
        return self._clock() - waiter.joined_at

    def held_s(self, waiter: Waiter) -> float:
        """Seconds since it got its place."""
        return self._clock() - waiter.granted_at

    def estimate_s(self, publisher: str, place: int) -> float | None:
        """Seconds until a place in the line has its turn: one ends in every mean time of a query,
        divided by how many run at once.
        """
        mean = self._durations.of(publisher)
        return None if mean is None else place * mean / max(1, self._places.num_at(publisher))

    def _check(self, waiter: Waiter, wait_s: float) -> None:
        """Raise if it has no place, and cannot wait."""
        standing = waiter.standing
        if waiter.place is not None or standing is None:
            return
        publisher, again_s = waiter.ask.publisher, standing.estimate_s
        if not wait_s:
            why = self._places.refusal(waiter.ask) or NodeBusyError(
                f"{publisher} has refused a query just now, or others wait for it; try again later"
            )
            raise type(why)(str(why), again_s)
        if again_s is not None and again_s > wait_s:
            raise NodeBusyError(
                f"about {again_s:.0f} s to wait for {publisher} at place {standing.place} of "
                f"{standing.of}, longer than the {wait_s:g} s that max_wait_s and deadline_s "
                f"allow; try again later, or allow more",
                again_s,
            )
        if waiter.ask.is_background:
            return
        own = [w for w in self._waiting[waiter.ask.subject] if not w.ask.is_background]
        if waiter.ask.subject and len(own) > self._limits.waiting_of_subject:
            raise RateLimitedError(
                f"{len(own) - 1} queries of {waiter.ask.subject} wait, the most of one subject; "
                f"wait for one to end",
                again_s,
            )
        num_waiting = sum(not other.ask.is_background for other in self._in_order())
        if num_waiting > self._limits.waiting:
            raise NodeBusyError(
                f"{num_waiting - 1} queries wait for a place, as many as may; try again later, or "
                f"raise FEDATTN_GATEWAY_MAX_WAITING",
                again_s,
            )

    def _dispatch(self) -> None:
        """Give out what places there are, and tell the others where they stand."""
        while (waiter := self._next()) is not None:
            self._remove(waiter)
            subject = waiter.ask.subject
            if subject in self._waiting:  # the others have their turn first
                self._waiting[subject] = self._waiting.pop(subject)
            waiter.place, waiter.standing = self._places.take(waiter.ask), None
            waiter.granted_at = self._clock()
            waiter.changed.set()
        self._tell_standings()

    def _next(self) -> Waiter | None:
        for waiter in self._in_order():
            is_paused = waiter.ask.publisher in self._paused
            if not is_paused and self._places.refusal(waiter.ask) is None:
                return waiter
        return None

    def _in_order(self) -> list[Waiter]:
        """All that wait, as they would get places that are of use to all."""
        turns = zip_longest(*self._waiting.values())
        return [waiter for turn in turns for waiter in turn if waiter is not None]

    def _tell_standings(self) -> None:
        waiting = self._in_order()
        of, before = Counter(waiter.ask.publisher for waiter in waiting), Counter[str]()
        for waiter in waiting:
            publisher = waiter.ask.publisher
            before[publisher] += 1
            place = before[publisher]
            estimate_s = self.estimate_s(publisher, place)
            standing = Standing(place=place, of=of[publisher], estimate_s=estimate_s)
            if standing != waiter.standing:
                waiter.standing = standing
                waiter.changed.set()

    def _give_back(self, waiter: Waiter) -> None:
        """It has its place no more; the caller adds it again."""
        assert waiter.place is not None, "only who has a place gives it back"
        waiter.place.release()
        waiter.place = None

    def _add(self, waiter: Waiter) -> None:
        """Among those of its subject; the caller dispatches."""
        own = self._waiting.setdefault(waiter.ask.subject, [])
        insort(own, waiter, key=lambda one: one.rank)

    def _add_first(self, waiter: Waiter) -> None:
        """The same, and its subject has the next turn."""
        own = self._waiting.pop(waiter.ask.subject, [])
        self._waiting = {waiter.ask.subject: own, **self._waiting}
        self._add(waiter)

    def _remove(self, waiter: Waiter) -> None:
        own = self._waiting[waiter.ask.subject]
        own.remove(waiter)
        if not own:
            del self._waiting[waiter.ask.subject]

    def _pause(self, publisher: str) -> None:
        """Ask nothing there for a while."""
        pause_s = min(2 * self._pauses.get(publisher, FIRST_PAUSE_S / 2), MAX_PAUSE_S)
        self._pauses[publisher] = pause_s
        if publisher not in self._paused:
            self._paused.add(publisher)
            self._later(pause_s, lambda: self._resume(publisher))

    def _resume(self, publisher: str) -> None:
        self._paused.discard(publisher)
        self._dispatch()
