"""Whether the members that others wait for send their rows fast enough."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fedattn.core.chunks import Chunk
from fedattn.core.session import SessionState


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceLimits:
    """How long a member may let others wait.

    Attributes:
        frame_s: for its next whole frame, seconds.
        bytes_per_s: what it must send and take besides: each byte that has come of the frame that
            has begun, and each that waits to be taken by it, gives it that much longer.
        total_s: in all of the session, seconds.
        tick_s: longest time between two looks; a longer one is the aggregator's own delay.
    """

    frame_s: float
    bytes_per_s: float
    total_s: float
    tick_s: float


@dataclass(slots=True)
class _Lap:
    """One member on its way to its next whole frame, times in seconds."""

    num_come: int = 0  # bytes of the frame that has begun
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

    def note(self, index: int, chunk: Chunk) -> None:
        """A chunk of a member has come and was good."""
        lap = self._laps[index]
        is_whole = chunk.offset + len(chunk.data) == chunk.frame_size
        lap.num_come = 0 if is_whole else chunk.offset + len(chunk.data)
        if is_whole:
            lap.waited_s = 0.0

    def total_s(self, index: int) -> float:
        """How long others have waited for a member in all; 0 for the publisher."""
        return self._laps[index].total_s if index < len(self._laps) else 0.0

    def is_at_fault(self, index: int) -> bool:
        """Whether others waited long enough for a member to blame it, whoever ended it and why."""
        return self.total_s(index) > self._limits.frame_s

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
        slow: list[tuple[int, str]] = []
        for index, lap in enumerate(self._laps):
            is_due = index not in self._held and self._state.is_due(index)
            if is_due and lap.was_due:
                lap.waited_s += passed_s
                lap.total_s += passed_s
                if reason := self._too_slow(lap, waiting_bytes(index)):
                    slow.append((index, reason))
            lap.was_due = is_due
        return slow

    def _too_slow(self, lap: _Lap, waiting_bytes: int) -> str:
        limits = self._limits
        if lap.total_s > limits.total_s:
            return f"it let others wait for more than {limits.total_s:.3g} s, half of the deadline"
        num_bytes = lap.num_come + waiting_bytes
        most_s = limits.frame_s + num_bytes / limits.bytes_per_s
        if lap.waited_s <= most_s:
            return ""
        if not num_bytes:
            return f"it sent no rows for {limits.frame_s:g} s while others waited for them"
        return (
            f"it was slower than {limits.bytes_per_s:g} bytes a second: {num_bytes} bytes were "
            f"sent or to be taken in {most_s:.3g} s"
        )
