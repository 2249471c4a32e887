"""How many jobs there may be."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """How much is kept, and how much waits.

    Attributes:
        retention_s: time from a job's end to its removal.
        most: jobs of all callers that are kept.
        most_of_caller: jobs of one caller that are kept.
        at_once: background queries of one caller that run.
        waiting: further ones that wait for their turn.
        grace_s: time for those that run when the gateway stops.
    """

    retention_s: float
    most: int
    most_of_caller: int
    at_once: int
    waiting: int
    grace_s: float
