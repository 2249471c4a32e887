"""Earlier turns of a conversation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import check_range, check_text

MAX_TURNS = 256
"""Earlier turns that go with a question."""
MAX_TURNS_LENGTH = 131_072
"""Characters of all of them together."""


class Speaker(StrEnum):
    """Whose turn it was."""

    SYSTEM = "system"  # whoever set the conversation up
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one speaker said before the question.

    Attributes:
        speaker: who.
        text: what; may be empty.
    """

    speaker: Speaker
    text: str = field(repr=False)

    def __post_init__(self) -> None:
        check_text("a turn", self.text)


def check_turns(turns: Sequence[Turn]) -> None:
    """Hold a conversation to its limits.

    Raises:
        InvalidRequestError: it has too many turns, or they are too long together.
    """
    check_range("number of turns", len(turns), 0, MAX_TURNS, InvalidRequestError)
    length = sum(len(turn.text) for turn in turns)
    check_range("length of all turns together", length, 0, MAX_TURNS_LENGTH, InvalidRequestError)
