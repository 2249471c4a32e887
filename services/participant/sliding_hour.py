"""What a node gave within the last hour."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fedattn.core.consent import Ask

HOUR_S = 3600.0
MAX_SESSIONS = 10_000
"""An hour holds no more; who comes after that is to be refused."""


@dataclass(slots=True)
class _Running:
    since: float
    ask: Ask
    answers: int = 0
    answer_bytes: int = 0

    @property
    def num_bytes(self) -> int:
        return max(self.ask.num_bytes, self.answer_bytes)


@dataclass(slots=True)
class SlidingHour:
    """Sessions that run, with all they may send, and those that ended within the last hour.

    Ended sessions have no name any more: another of the same name counts anew. Any thread may call.
    """

    monotonic: Callable[[], float]
    _running: dict[str, _Running] = field(default_factory=dict)
    _ended: deque[tuple[float, int, int]] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def num_sessions(self, but: str = "") -> int:
        """Sessions other than the running one `but`."""
        with self._lock:
            self._forget_old()
            return len(self._running) - (but in self._running) + len(self._ended)

    def num_bytes(self, but: str = "") -> int:
        """Bytes they sent, or may still send."""
        with self._lock:
            self._forget_old()
            running = sum(it.num_bytes for name, it in self._running.items() if name != but)
            return running + sum(num_bytes for _, num_bytes, _ in self._ended)

    def count_answers(
        self, session_id: str, count: int, num_bytes: int
    ) -> tuple[int, int, int] | None:
        """Count answers of a running session, and their bytes.

        Returns:
            Answers of it, answers of all within the hour, bytes of it; None if it does not run.
        """
        with self._lock:
            self._forget_old()
            running = self._running.get(session_id)
            if running is None:
                return None
            running.answers += count
            running.answer_bytes += num_bytes
            everywhere = sum(it.answers for it in self._running.values())
            everywhere += sum(answers for _, _, answers in self._ended)
            return running.answers, everywhere, running.answer_bytes

    def has_admitted(self, ask: Ask) -> bool:
        """Whether its session runs, and was admitted with at least what is asked for now."""
        running = self._running.get(ask.session_id)
        return running is not None and running.ask.covers(ask)

    def admit(self, ask: Ask) -> None:
        """Count a session; one that runs is not counted twice."""
        with self._lock:
            running = self._running.get(ask.session_id)
            if running is None:
                self._running[ask.session_id] = _Running(self.monotonic(), ask)
            else:
                running.ask = ask

    def settle(self, session_id: str, num_bytes: int) -> None:
        """A session is over; what it really sent counts for an hour from now."""
        with self._lock:
            running = self._running.pop(session_id, None)
            answers = 0 if running is None else running.answers
            self._ended.append((self.monotonic(), num_bytes, answers))

    def _forget_old(self) -> None:
        """An hour after its end, or after its start if nobody told of its end."""
        oldest = self.monotonic() - HOUR_S
        while self._ended and self._ended[0][0] <= oldest:
            self._ended.popleft()
        over = [name for name, running in self._running.items() if running.since <= oldest]
        for name in over:
            del self._running[name]
