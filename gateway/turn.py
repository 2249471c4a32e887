"""One's turn: waiting in the line for a place, and trying until a node takes what is asked."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Generic, TypeVar

from fedattn.core.errors import NodeBusyError, RateLimitedError
from fedattn.rest.events import QueuedEvent
from gateway.line import Line
from gateway.places import Ask
from gateway.waiting import Patience, Waiter

T = TypeVar("T")


class Turn(Generic[T]):
    """Joins the line at once; whoever makes one leaves it.

    Args:
        line: where it waits.
        ask: what it wants.
        patience: how long it may wait, all waits together.

    Raises:
        NodeBusyError, RateLimitedError: as `Line.join`.
    """

    def __init__(self, line: Line, ask: Ask, patience: Patience) -> None:
        self._line, self._patience = line, patience
        self._waiter: Waiter = line.join(ask, patience.wait_s)
        self._counts_from = None if patience.is_background else self._waiter.joined_at
        self._refusal = ""

    @property
    def publisher(self) -> str:
        """The node that is asked."""
        return self._waiter.ask.publisher

    @property
    def waited_s(self) -> float:
        """From when it came until it had its last place, seconds; exactly 0 if that was at once."""
        return self._waiter.granted_at - self._waiter.joined_at

    @property
    def spent_s(self) -> float:
        """Seconds of its deadline that were gone when it got its place; exactly 0 if none were."""
        return 0.0 if self._counts_from is None else self._waiter.granted_at - self._counts_from

    @property
    def held_s(self) -> float:
        """Seconds since then."""
        return self._line.held_s(self._waiter)

    @property
    def queued(self) -> QueuedEvent | None:
        """Where it stands, if it waits."""
        standing = self._waiter.standing
        if standing is None:
            return None
        estimate_s = standing.estimate_s
        return QueuedEvent(
            place=standing.place,
            of=standing.of,
            estimate_s=None if estimate_s is None else round(estimate_s, 1),
        )

    async def take(self, attempt: Callable[[], Awaitable[T]]) -> AsyncIterator[QueuedEvent | T]:
        """Where it stands, whenever that changes, and last what the attempt came to.

        A node that refuses for now has done nothing: it is tried again, as `Line.put_back` says.

        Args:
            attempt: made while there is a place.

        Raises:
            NodeBusyError, RateLimitedError: no place in time.
            FedAttnError: as raised by the attempt.
        """
        while True:
            async for queued in self._wait():
                yield queued
            try:
                result = await attempt()
            except (NodeBusyError, RateLimitedError) as error:
                if self._line.waited_s(self._waiter) >= self._patience.wait_s:
                    again_s = self._line.estimate_s(self.publisher, 1)
                    raise type(error)(str(error), again_s) from None
                self._refusal = f"; it was refused for now: {error}"
                self._line.put_back(self._waiter)
            else:
                yield result
                return

    def move(self, publisher: str, left_s: float) -> None:
        """It failed, and is tried again: with its place, or from the head of another's line.

        Args:
            publisher: that is asked now.
            left_s: of its deadline, which counts from now on, whoever waits for it.

        Raises:
            NodeBusyError: there is no place, and it may wait no longer.
        """
        if self._counts_from is None:
            self._counts_from = self._waiter.granted_at
        wait_s = min(self._patience.wait_s, self._line.waited_s(self._waiter) + left_s)
        self._patience, self._refusal = replace(self._patience, wait_s=wait_s), ""
        self._line.move(self._waiter, publisher)
        if self._waiter.place is None and self._line.waited_s(self._waiter) >= wait_s:
            raise self._too_long(self.queued)

    def note_answered(self) -> None:
        """All went well: its time counts among those that estimates are made of."""
        self._line.note_answered(self._waiter)

    def leave(self) -> None:
        """Go, with a place or without; a second time does nothing."""
        self._line.leave(self._waiter)

    async def _wait(self) -> AsyncIterator[QueuedEvent]:
        told: QueuedEvent | None = None
        while self._waiter.place is None:
            queued = self.queued
            if queued is not None and queued != told:
                told = queued
                yield queued
                continue
            self._waiter.changed.clear()
            left_s = self._patience.wait_s - self._line.waited_s(self._waiter)
            try:
                async with asyncio.timeout(left_s):
                    await self._waiter.changed.wait()
            except TimeoutError:
                if self._waiter.place is None:  # else it came in the last moment
                    raise self._too_long(queued) from None

    def _too_long(self, queued: QueuedEvent | None) -> NodeBusyError:
        where = "" if queued is None else f" and is at place {queued.place} of {queued.of}"
        return NodeBusyError(
            f"the query has waited {self._patience.wait_s:g} s for {self.publisher}{where}; "
            f"max_wait_s and deadline_s allow no more: try again later, or allow more"
            f"{self._refusal}",
            None if queued is None else queued.estimate_s,
        )
