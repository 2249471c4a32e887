"""What waits in the line for a place, and for how long."""

import asyncio
from dataclasses import dataclass, field, replace

from fedattn.core.fair_places import Place
from fedattn.rest.session import SessionBody
from gateway.places import Ask

MAX_WAIT_S = 3600.0
"""Longest wait for a place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a query may wait for a place.

    Attributes:
        wait_s: longest time in the line, seconds.
        is_background: nobody waits for it, and its deadline counts from its start; else waiting
            counts too.
    """

    wait_s: float
    is_background: bool = False

    @classmethod
    def of(cls, body: SessionBody, *, is_background: bool = False) -> "Patience":
        """As a body says."""
        wait_s = MAX_WAIT_S if body.max_wait_s is None else body.max_wait_s
        return cls(wait_s=wait_s, is_background=is_background)

    def within(self, deadline_s: float) -> "Patience":
        """No longer than a query's deadline, if waiting counts towards it."""
        return self if self.is_background else replace(self, wait_s=min(self.wait_s, deadline_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where one stands among those who wait for the same publisher.

    Attributes:
        place: from 1.
        of: how many wait.
        estimate_s: until its turn; None while no query has been measured.
    """

    place: int
    of: int
    estimate_s: float | None


@dataclass(slots=True, eq=False)
class Waiter:
    """A query in the line, or with a place.

    Attributes:
        ask: what it wants.
        number: of its arrival; a later one if others were let before it.
        joined_at: when it came, by the line's clock.
        granted_at: when it last got a place.
        place: once it has one.
        standing: while it has none.
        changed: set when one of them changes.
    """

    ask: Ask
    number: int
    joined_at: float
    granted_at: float = 0.0
    place: Place | None = None
    standing: Standing | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def rank(self) -> tuple[bool, int]:
        """Orders those of one subject: who waits for an answer before background queries."""
        return self.ask.is_background, self.number
