"""How many queries there may be."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    """How many queries run, and how many wait.

    Attributes:
        at_once: that run, of all.
        background_at_once: that run, of one account's background queries.
        waiting: that wait, background queries aside, which their jobs bound.
        waiting_of_subject: of those, of one subject.
    """

    at_once: int = 32
    background_at_once: int = 2
    waiting: int = 256
    waiting_of_subject: int = 64
