"""Who gets one of the node's places for sessions."""

import asyncio
from types import TracebackType
from typing import Self

from fedattn.core.errors import NodeBusyError
from services.participant.pressure import PressureGauge


class Place:
    """One session's place; given back once, by `release` or at the end of a `with` block."""

    def __init__(self, admission: "Admission") -> None:
        self._admission: Admission | None = admission

    def release(self) -> None:
        """Give the place back; a second call does nothing."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.release()


class Admission:
    """The places of one node. Lives on the event loop.

    Args:
        node_id: of this node, for messages.
        max_sessions: places.
        pressure: heat and memory, which may close the door.
    """

    def __init__(self, node_id: str, max_sessions: int, pressure: PressureGauge) -> None:
        self._node_id = node_id
        self._max_sessions = max_sessions
        self._pressure = pressure
        self._active = 0
        self._is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def active_sessions(self) -> int:
        """Places that are taken."""
        return self._active

    def take(self) -> Place:
        """A place for one more session.

        Raises:
            NodeBusyError: there is none, or the node is too hot or short of memory.
        """
        if self._is_draining:
            raise NodeBusyError(f"{self._node_id} is stopping; try again in a moment")
        if self._active >= self._max_sessions:
            raise NodeBusyError(
                f"{self._node_id} takes part in {self._max_sessions} sessions already; "
                f"try again later"
            )
        self._pressure.admit()
        self._active += 1
        self._idle.clear()
        return Place(self)

    def give_back(self) -> None:
        """A place is free again; called by `Place.release`."""
        self._active -= 1
        if self._active == 0:
            self._idle.set()

    async def drain(self) -> None:
        """Take no more sessions, and wait for those that run."""
        self._is_draining = True
        await self.wait_idle()

    async def wait_idle(self) -> None:
        """Wait until no session runs here."""
        await self._idle.wait()
