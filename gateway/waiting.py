"""What waits in the line for a place, and for how long."""

import asyncio
from dataclasses import dataclass, field

from fedattn.core.fair_places import Place
from fedattn.rest.query import SessionBody
from gateway.places import Ask

MAX_BACKGROUND_WAIT_S = 3600.0
"""Longest wait for a place of a query that nobody waits for."""


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
        most = MAX_BACKGROUND_WAIT_S if is_background else body.deadline_s
        wait_s = most if body.max_wait_s is None else min(body.max_wait_s, most)
        return cls(wait_s=wait_s, is_background=is_background)


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
        number: of its arrival.
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
