"""What a caller wants to have kept."""

from dataclasses import dataclass

from gateway.callers import Caller
from gateway.jobs_running import Ask


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What a caller wants to have kept.

    Attributes:
        caller: whose job it is.
        question: what is asked.
        ask: puts the query into the line.
        is_background: whether nobody waits for it.
        key: idempotency key, if it came with one.
        body_sha256: of the request's body.
    """

    caller: Caller
    question: str
    ask: Ask
    is_background: bool
    key: str | None
    body_sha256: bytes
