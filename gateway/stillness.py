"""Whether this process itself stood still while it waited for others."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_LOOK_S, _LATE_S = 1.0, 3.0
"""A look at the clock that comes so much later than it is due tells of a stop."""


class Stillness:
    """Waits by the time that this process was awake, and knows how long it was not.

    Whoever was stopped (SIGSTOP, a machine that slept) finds its time-outs over and its connections
    given up, and would blame the others.

    Args:
        clock: seconds since some moment.

    Attributes:
        seconds: that the process stood still since others were last heard; 0 if it did not.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.seconds = 0.0

    async def wait(self, work: Awaitable[T], awake_s: float) -> T:
        """What some work comes to, which is ended if it does not within so many seconds awake.

        Raises:
            TimeoutError: that is so.
            Exception: what the work raises.
        """
        task, left_s = asyncio.ensure_future(work), awake_s
        try:
            while left_s > 0:
                due_s, begun = min(_LOOK_S, left_s), self._clock()
                await asyncio.wait({task}, timeout=due_s)
                late_s = self._clock() - begun - due_s
                self.seconds += late_s if late_s > _LATE_S else 0.0
                if task.done():
                    return task.result()
                left_s -= due_s
            raise TimeoutError
        finally:
            task.cancel()
