"""Who gets one of the node's places for sessions."""

import asyncio

from fedattn.core.errors import NodeBusyError
from fedattn.core.fair_places import FairPlaces, Place
from services.participant.pressure import PressureGauge


class Admission:
    """The places of one node, shared as `FairPlaces`. Lives on the event loop.

    Args:
        node_id: of this node, for messages.
        max_sessions: places.
        pressure: heat and memory, which may close the door.
    """

    def __init__(self, node_id: str, max_sessions: int, pressure: PressureGauge) -> None:
        self._node_id = node_id
        self._places = FairPlaces(node_id, max_sessions)
        self._pressure = pressure
        self._is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def active_sessions(self) -> int:
        """Places that are taken."""
        return self._places.taken

    def take(self, publisher: str, subject: str) -> Place:
        """A place for one more session.

        Args:
            publisher: whose session it is; this node's own id if it asks itself.
            subject: for whom it asks; empty if it does not say.

        Raises:
            NodeBusyError: there is none, or the node is too hot or short of memory.
            RateLimitedError: there is none for them, who hold some already.
        """
        if self._is_draining:
            raise NodeBusyError(f"{self._node_id} is stopping; try again in a moment")
        self._pressure.admit()
        place = self._places.take(publisher, subject)
        self._idle.clear()
        return Place(lambda: self._give_back(place))

    def _give_back(self, place: Place) -> None:
        place.release()
        if self._places.taken == 0:
            self._idle.set()

    async def drain(self) -> None:
        """Take no more sessions, and wait for those that run."""
        self._is_draining = True
        await self.wait_idle()

    async def wait_idle(self) -> None:
        """Wait until no session runs here."""
        await self._idle.wait()
