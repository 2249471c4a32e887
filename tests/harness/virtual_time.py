"""An event loop whose time passes at once, and only when a test says so."""

import asyncio
import selectors


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs what is ready; timers fire in their order as `run_for` lets time pass.

    For code without sockets, threads and processes: it never waits for one.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._until = 0.0
        super().__init__(_Idle(self))

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._now

    def settle(self) -> None:
        """Run until nobody has anything to do at this moment."""
        self.run_for(0.0)

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        self._until = self._now + seconds
        self.run_forever()

    def pass_idle(self, wait_s: float | None) -> None:
        """Nothing is ready for so long; None for ever. Go on to that moment, or stop before it."""
        if wait_s is None or self._now + wait_s > self._until:
            self._now = self._until
            self.stop()
        else:
            self._now += wait_s


class _Idle(selectors.SelectSelector):
    """Tells its loop when it would wait."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self._loop.pass_idle(timeout)
        return super().select(0)
