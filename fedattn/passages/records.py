"""What a store remembers of each file."""

import os
import sqlite3
from dataclasses import dataclass
from enum import StrEnum

from fedattn.core.contexts import SkipReason
from fedattn.passages.looking import Digests, Look


class FileState(StrEnum):
    """How far a file has been read."""

    WHOLE = "whole"
    PARTIAL = "partial"  # its passages are right, but not all of them
    STALE = "stale"  # its passages are of an earlier content


@dataclass(slots=True, kw_only=True)
class FileRecord:
    """A file as it was read.

    Attributes:
        file_id: in the database; 0: not there yet.
        reason: why it has no passages; None: it has.
    """

    name: str
    look: Look
    digests: Digests
    is_racy: bool
    file_id: int = 0
    state: FileState = FileState.STALE
    reason: SkipReason | None = None
    num_passages: int = 0
    num_chars: int = 0

    def save(self, connection: sqlite3.Connection) -> None:
        """Write it down; a new one gets its id."""
        values = (
            *(os.fsencode(self.name), self.look.identity, self.look.size, self.look.mtime_ns),
            *(self.look.ctime_ns, self.digests.head, self.digests.tail, self.digests.content),
            *(self.is_racy, self.state, self.reason, self.num_passages, self.num_chars),
        )
        places = ", ".join("?" * len(values))
        cursor = connection.execute(
            f"INSERT OR REPLACE INTO files VALUES(?, {places})",
            (self.file_id or None, *values),
        )
        self.file_id = self.file_id or cursor.lastrowid or 0


def load_records(connection: sqlite3.Connection) -> list[FileRecord]:
    """All files of a database."""
    return [_record(*row) for row in connection.execute("SELECT * FROM files")]


def _record(  # noqa: PLR0913, PLR0917 - the columns
    file_id: int,
    name: bytes,
    identity: str,
    size: int,
    mtime_ns: int,
    ctime_ns: int,
    head: bytes,
    tail: bytes,
    content: bytes,
    is_racy: int,
    state: str,
    reason: str | None,
    num_passages: int,
    num_chars: int,
) -> FileRecord:
    return FileRecord(
        name=os.fsdecode(name),
        look=Look(identity=identity, size=size, mtime_ns=mtime_ns, ctime_ns=ctime_ns),
        digests=Digests(head=head, tail=tail, content=content),
        is_racy=bool(is_racy),
        file_id=file_id,
        state=FileState(state),
        reason=SkipReason(reason) if reason else None,
        num_passages=num_passages,
        num_chars=num_chars,
    )
