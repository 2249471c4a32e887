"""Who asks, and how much of everything they may have."""

from dataclasses import dataclass

from starlette.requests import Request

from fedattn.core.errors import NotAllowedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one account may have.

    Attributes:
        queries_per_minute: requests in any 60 s.
        max_concurrent: queries at once.
        kv_bytes_per_day: bytes of KV that its queries move in a day of UTC; None for any number.
    """

    queries_per_minute: int = 60
    max_concurrent: int = 8
    kv_bytes_per_day: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever sent a request.

    Attributes:
        subject: the signed-in name, which nodes are told; empty at an open gateway.
        account: what is counted together: one API key, or one name of the issuer.
        publishers: nodes it may publish through; None for all.
        limits: None for none of its own.
    """

    subject: str = ""
    account: str = ""
    publishers: frozenset[str] | None = None
    limits: Limits | None = None

    def speak_as(self, subject: str) -> str:
        """Whom nodes are told of, where a request says `subject`.

        Raises:
            NotAllowedError: it says somebody else than who signed in.
        """
        if self.subject and subject not in {"", self.subject}:
            raise NotAllowedError(
                f"signed in as {self.subject!r}, the request says subject {subject!r}; leave the "
                f"field out"
            )
        return self.subject or subject

    def may_publish(self, publisher: str) -> bool:
        """Whether it may ask through this node."""
        return self.publishers is None or publisher in self.publishers


ANYONE = Caller()
"""Who asks at an open gateway."""


def caller_of(request: Request) -> Caller:
    """Whoever sent it, as the sign-in found."""
    caller: Caller = request.state.caller
    return caller
