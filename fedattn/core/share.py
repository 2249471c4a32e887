"""What contributors may know of a question, and how they are told."""

import hashlib
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import check_text

MAX_TEXT_SIZE = 2048
"""Bytes that are told of a question; hints for all members fit one message."""
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

    The publisher signs its digest, so nobody on the way can tell them something else; the salt
    keeps whoever sees the digest from trying out questions.

    Attributes:
        text: the words, or the question as far as it fits, 1 to 2048 bytes in UTF-8.
        salt: random, 16 bytes.
    """

    text: str = field(repr=False)
    salt: bytes = field(default_factory=lambda: secrets.token_bytes(SALT_SIZE), repr=False)

    def __post_init__(self) -> None:
        check_text("what is told of the question", self.text)
        size = len(self.text.encode())
        if not 0 < size <= MAX_TEXT_SIZE or len(self.salt) != SALT_SIZE:
            raise InvalidRequestError(
                f"expected 1 to {MAX_TEXT_SIZE} bytes told of the question and {SALT_SIZE} bytes "
                f"of salt, got {size} and {len(self.salt)}"
            )

    @classmethod
    def of(cls, text: str) -> Self:
        """The hint of a text, without what does not fit."""
        stripped = check_text("what is told of the question", text.strip())
        return cls(text=stripped.encode()[:MAX_TEXT_SIZE].decode(errors="ignore"))

    @property
    def digest(self) -> bytes:
        """SHA-256 over salt and text, 32 bytes."""
        return hashlib.sha256(self.salt + self.text.encode()).digest()
