"""Whether the members that others wait for begin, and send their rows, fast enough."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fedattn.core.chunks import Chunk
from fedattn.core.session import MemberState, SessionState
from services.aggregator.patience import allowed_s


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceLimits:
    """How long a member may let others wait.

    Attributes:
        attach_s: to begin its exchange, seconds, at most.
        frame_s: for its next whole frame, seconds, at most.
        margin_s: for either, besides what most others took; seconds.
        bytes_per_s: what it must send and take besides: each byte that has come of the frame that
            has begun, and each that waits to be taken by it, gives it that much longer.
        total_s: in all of the session, seconds.
        tick_s: longest time between two looks; a longer one is the aggregator's own delay.
    """

    attach_s: float
    frame_s: float
    margin_s: float
    bytes_per_s: float
    total_s: float
    tick_s: float

    @property
    def fault_s(self) -> float:
        """Who let others wait for so long in all is to blame for its end, whatever ended it."""
        return min(2 * self.margin_s, self.frame_s)


@dataclass(slots=True)
class _Lap:
    """One member on its way to its next whole frame, times in seconds."""

    begun_at: float = 0.0  # by the clock: when it attached, or its last whole frame had come
    num_come: int = 0  # bytes of the frame that has begun
    begun_s: float = 0.0  # of waited_s, when that began
    waited_s: float = 0.0  # by others, for this frame
    total_s: float = 0.0  # by others, for all frames
    was_due: bool = False


class Pace:
    """How long the others have waited for each contributor of one session.

    Time counts for a member only while it is due: others are there that need its next frame, it
    waits for no rows of others itself, and the aggregator takes what it sends.

    Args:
        state: of the session.
        limits: how long is too long.
        clock: seconds since some moment.
    """

    def __init__(
        self,
        state: SessionState,
        limits: PaceLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state, self._limits, self._clock = state, limits, clock
        self._laps = [_Lap() for _ in state.layout.contributors]
        self._held: set[int] = set()
        self._looked_at = clock()
        self._age_s = 0.0
        self._attached_s = [math.inf] * len(state.ledgers)
        self._never_began: set[int] = set()
        self._took: defaultdict[int, dict[int, float]] = defaultdict(dict)
        """Layer -> member -> seconds a token, of those that computed it."""

    def begin(self, index: int) -> None:
        """A member has attached."""
        self._attached_s[index] = self._age_s
        if index < len(self._laps):
            self._laps[index].begun_at = self._clock()

    def note(self, index: int, chunk: Chunk) -> None:
        """A chunk of a member has come and was good."""
        lap = self._laps[index]
        if chunk.offset == 0:
            lap.begun_s = lap.waited_s
        lap.num_come = chunk.offset + len(chunk.data)
        if lap.num_come < chunk.frame_size:
            return
        now, member = self._clock(), self._state.member(index)
        if not member.is_cached_by_owner:
            self._took[chunk.layer][index] = (now - lap.begun_at) / max(1, len(member.span))
        lap.begun_at, lap.num_come, lap.waited_s = now, 0, 0.0

    def is_at_fault(self, index: int) -> bool:
        """Whether others waited long enough for a member to blame it, whoever ended it and why."""
        is_publisher = index == len(self._laps)
        return not is_publisher and (
            index in self._never_began or self._laps[index].total_s > self._limits.fault_s
        )

    @contextmanager
    def held(self, index: int) -> Iterator[None]:
        """While nothing more is taken from a member, as somebody else has no room for it."""
        self._held.add(index)
        try:
            yield
        finally:
            self._held.discard(index)
            self._laps[index].was_due = False

    def look(self, waiting_bytes: Callable[[int], int]) -> list[tuple[int, str]]:
        """Members that have been too slow by now, and why.

        Args:
            waiting_bytes: what a member, by its place, has not taken yet.
        """
        now = self._clock()
        passed_s, self._looked_at = min(now - self._looked_at, self._limits.tick_s), now
        self._age_s += passed_s
        slow = self._not_attached()
        for index, lap in enumerate(self._laps):
            is_due = index not in self._held and self._state.is_due(index)
            if is_due and lap.was_due:
                lap.waited_s += passed_s
                lap.total_s += passed_s
                if reason := self._too_slow(index, waiting_bytes(index)):
                    slow.append((index, reason))
            lap.was_due = is_due
        return slow

    def _not_attached(self) -> list[tuple[int, str]]:
        waiting = [
            index
            for index, ledger in enumerate(self._state.ledgers)
            if ledger.state is MemberState.WAITING
        ]
        if not waiting or self._age_s <= min(self._limits.margin_s, self._limits.attach_s):
            return []
        slow: list[tuple[int, str]] = []
        attached = [took_s for took_s in self._attached_s if took_s < math.inf]
        others = [*attached, *[math.inf] * (len(waiting) - 1)]  # of each that waits
        for index in waiting:
            most_s = self._limits.attach_s
            if index < len(self._laps):
                most_s = allowed_s(others, self._limits.margin_s, most_s)
            if self._age_s > most_s:
                self._never_began.add(index)
                slow.append((index, f"it did not begin its exchange within {most_s:.3g} s"))
        return slow

    def _too_slow(self, index: int, waiting_bytes: int) -> str:
        limits, lap = self._limits, self._laps[index]
        if lap.total_s > limits.total_s:
            return f"it let others wait for more than {limits.total_s:.3g} s, half of the deadline"
        num_bytes = lap.num_come + waiting_bytes
        waited_s, most_s = lap.waited_s, limits.margin_s
        if lap.num_come:
            waited_s -= lap.begun_s
        elif waited_s > most_s:
            most_s = self._allowed_s(index)
        most_s += num_bytes / limits.bytes_per_s
        if waited_s <= most_s:
            return ""
        if not num_bytes:
            return f"it sent no rows for {most_s:.3g} s while others waited for them"
        return (
            f"it was slower than {limits.bytes_per_s:g} bytes a second: {num_bytes} bytes were "
            f"sent or to be taken in {most_s:.3g} s"
        )

    def _allowed_s(self, index: int) -> float:
        """How long others may wait for the next frame of a member."""
        layer, member = min(self._state.ledgers[index].awaited), self._state.member(index)
        took = self._took[layer]
        others = [
            took.get(other, math.inf) * max(1, len(member.span))
            for other, ledger in enumerate(self._state.ledgers[: len(self._laps)])
            if other != index and (other in took or self._is_at_it(other, layer))
        ]
        return allowed_s(others, self._limits.margin_s, self._limits.frame_s)

    def _is_at_it(self, index: int, layer: int) -> bool:
        """Whether a member is going to compute the rows of a layer."""
        ledger = self._state.ledgers[index]
        is_computed = not self._state.member(index).is_cached_by_owner
        return is_computed and not ledger.is_over and layer in ledger.awaited
