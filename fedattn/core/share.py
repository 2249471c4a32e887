"""What contributors may know of a question, and how they are told."""

import hashlib
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import MAX_QUESTION_LENGTH, check_text

SALT_SIZE = 16
DIGEST_SIZE = 32


class Share(StrEnum):
    """What contributors are told, to choose the passages that take part."""

    NOTHING = "nothing"  # they choose without knowing what is asked
    TOPIC = "topic"  # words that the publisher chose to reveal
    QUESTION = "question"  # the question itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """What contributors are told of a question.

    The publisher signs its digest, so nobody on the way can tell them something else; the salt keeps
    whoever sees the digest from trying out questions.

    Attributes:
        text: the words, or the question.
        salt: random, 16 bytes.
    """

    text: str = field(repr=False)
    salt: bytes = field(default_factory=lambda: secrets.token_bytes(SALT_SIZE), repr=False)

    def __post_init__(self) -> None:
        check_text("what is told of the question", self.text)
        if not 0 < len(self.text) <= MAX_QUESTION_LENGTH or len(self.salt) != SALT_SIZE:
            raise InvalidRequestError(
                f"expected 1 to {MAX_QUESTION_LENGTH} characters told of the question and "
                f"{SALT_SIZE} bytes of salt, got {len(self.text)} and {len(self.salt)}"
            )

    @property
    def digest(self) -> bytes:
        """SHA-256 over salt and text, 32 bytes."""
        return hashlib.sha256(self.salt + self.text.encode()).digest()
