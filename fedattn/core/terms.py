"""All that the members of one session agree on before it begins."""

import re
from dataclasses import dataclass

from fedattn.core.errors import InvalidRequestError
from fedattn.core.spans import SessionLayout
from fedattn.core.types import KvShape

_SESSION_ID = re.compile(r"[0-9a-f]{32}")


def check_session_id(session_id: str) -> None:
    """Hold what an aggregator calls a session against the form of such names.

    Raises:
        InvalidRequestError: it is not 32 hex digits.
    """
    if not _SESSION_ID.fullmatch(session_id):
        raise InvalidRequestError(
            f"expected 32 hex digits as the id of a session, got {session_id[:40]!r}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTerms:
    """What the aggregator laid out, as every member gets it.

    Attributes:
        session_id: random, 32 hex digits.
        layout: members in token order, the publisher last.
        shape: sizes of the KV rows.
        deadline_s: longest life of the session, seconds.
        progress_timeout_s: longest wait for rows without any progress, seconds.
        min_participants: fewest, publisher included, that must stay complete.
        wants_timeline: whether members tell what they did when.
    """

    session_id: str
    layout: SessionLayout
    shape: KvShape
    deadline_s: float
    progress_timeout_s: float
    min_participants: int
    wants_timeline: bool = False

    def __post_init__(self) -> None:
        if self.layout.num_layers != self.shape.num_layers:
            raise ValueError(
                f"the layout is for {self.layout.num_layers} blocks, the KV rows for "
                f"{self.shape.num_layers}"
            )
