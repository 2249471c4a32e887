"""What may be told of a private context: counts, never its text or the names of its files."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class SkipReason(StrEnum):
    """Why a file of a private context is not read."""

    UNKNOWN_KIND = "unknown_kind"  # its suffix, or what it begins with, is of no text format
    EMPTY = "empty"  # no bytes
    BLANK = "blank"  # nothing but white space
    BINARY = "binary"  # NUL or too many control characters
    UNDECODABLE = "undecodable"  # no encoding is certain
    TOO_LARGE = "too_large"  # does not fit any more
    TOO_MANY = "too_many"  # the folder holds more entries than are looked at
    UNREADABLE = "unreadable"  # no permission, gone, no regular file
    OUTSIDE = "outside"  # a link that leads out of the folder
    DUPLICATE = "duplicate"  # read already under another name

    @property
    def words(self) -> str:
        """For people."""
        return self.value.replace("_", " ")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextSummary:
    """Counts of one private context.

    Attributes:
        is_given: whether the node was given a file or folder at all.
        num_tokens: tokens of its text; an estimate for a long one.
        num_passages: passages that its text is cut into.
        num_files: files that were read.
        skipped: files that were not, by reason, in the order of `SkipReason`; counts from 1.
    """

    is_given: bool = False
    num_tokens: int = 0
    num_passages: int = 0
    num_files: int = 0
    skipped: tuple[tuple[SkipReason, int], ...] = ()

    @classmethod
    def count(
        cls, num_tokens: int, num_passages: int, num_files: int, reasons: Iterable[SkipReason]
    ) -> Self:
        """The counts of a context that was given."""
        counts = Counter(reasons)
        return cls(
            is_given=True,
            num_tokens=num_tokens,
            num_passages=num_passages,
            num_files=num_files,
            skipped=tuple((reason, counts[reason]) for reason in SkipReason if counts[reason]),
        )

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to give."""
        return self.num_tokens == 0

    def describe_skipped(self) -> str:
        """Such as `3 files skipped (1 empty, 2 unknown kind)`; empty if none is."""
        if not self.skipped:
            return ""
        total = sum(count for _, count in self.skipped)
        reasons = ", ".join(f"{count} {reason.words}" for reason, count in self.skipped)
        return f"{total} {'file' if total == 1 else 'files'} skipped ({reasons})"

    def describe_empty(self) -> str:
        """Why there is nothing to give, for people."""
        if not self.is_given:
            return "nothing to give: it was given no text"
        return f"nothing to give: {self.describe_skipped() or 'no files'}"
