"""How long a node is waited for: as long as what others took makes fair, within a hard limit.

A node that is ten times as slow as most others, and a margin besides, is late. That leaves room for
a small board among servers; whether a node lives is told by pings, long before.
"""

import asyncio
import math
from collections.abc import Awaitable, Iterable
from statistics import median
from typing import TypeVar

SLACK = 10
"""So many times as long as the median of the others."""

T = TypeVar("T")


def allowed_s(others_s: Iterable[float], margin_s: float, hard_s: float) -> float:
    """How long a node may take for something, seconds.

    Args:
        others_s: how long each of the others took; inf for those that have not done it yet, so that
            nothing follows before most of them have.
        margin_s: besides.
        hard_s: in any case.

    Example: others took 0.2, 0.3 and 2 s, the margin is 5 s, the hard limit 10 s: 8 s.
    """
    return min(hard_s, SLACK * median([*others_s] or [math.inf]) + margin_s)


class Round:
    """Answers of several nodes that are awaited at once. Lives on the event loop.

    Args:
        num_nodes: that are awaited, each once.
        hard_s: for each of them.
    """

    def __init__(self, num_nodes: int, hard_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._begun, self._hard_s = self._loop.time(), hard_s
        self._others_s = [math.inf] * (num_nodes - 1)  # of one that has not answered
        self._waiting: dict[asyncio.Timeout, float] = {}

    @property
    def took_s(self) -> float:
        """Time since it began, seconds."""
        return self._loop.time() - self._begun

    def allowed_s(self, margin_s: float) -> float:
        """How long a node that has not answered yet may take, seconds from the beginning."""
        return allowed_s(self._others_s, margin_s, self._hard_s)

    async def wait(self, answer: Awaitable[T], margin_s: float) -> T:
        """The answer of one node.

        Args:
            answer: awaited.
            margin_s: that this node has.

        Raises:
            TimeoutError: it took too long.
        """
        timeout = asyncio.timeout(None)
        async with timeout:
            self._waiting[timeout] = margin_s
            timeout.reschedule(self._begun + self.allowed_s(margin_s))
            try:
                result = await answer
            finally:
                del self._waiting[timeout]
        self._note(self.took_s)
        return result

    def _note(self, took_s: float) -> None:
        """One has answered, which those that have not are compared with."""
        if not self._waiting:
            return
        self._others_s.remove(math.inf)
        self._others_s.append(took_s)
        usual_s = median(self._others_s)
        for timeout, margin_s in self._waiting.items():
            if timeout.expired():  # just now: its task does not know yet
                continue
            timeout.reschedule(self._begun + allowed_s([usual_s], margin_s, self._hard_s))
