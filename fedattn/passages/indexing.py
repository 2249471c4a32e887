"""One file into passages: in transactions of bounded size, each of which a crash leaves sound."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedattn.core.contexts import SkipReason
from fedattn.passages.database import Database
from fedattn.passages.records import FileRecord, FileState
from fedattn.passages.vocabulary import Vocabulary
from fedattn.passages.words import indexed_text
from fedattn.texts.listing import FoundFile
from fedattn.texts.pieces import Piece, SkippedError, cut_file, is_resumable

_ROWS = 500
"""Passages that are held before they go to SQLite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How files are read.

    Attributes:
        cut: makes pieces of a file.
        is_resumable: whether a file can be cut from the middle on.
        now_ns: the time now, as files have it.
        transaction_chars: of texts that one transaction writes, about.
    """

    cut: Callable[..., Iterator[Piece]] = cut_file
    is_resumable: Callable[[Path], bool] = is_resumable
    now_ns: Callable[[], int] = time.time_ns
    transaction_chars: int = 16 << 20


class FileIndexer:
    """Reads files into a database.

    Attributes:
        stopping: when it is set, what is under way ends after the passages at hand.
    """

    def __init__(self, database: Database, reading: Reading, encoding: str | None) -> None:
        self._database = database
        self._reading = reading
        self._encoding = encoding
        self.stopping = threading.Event()
        self._vocabulary = Vocabulary()

    def read(self, found: FoundFile, record: FileRecord) -> None:
        """Read all of a file; what was there of it goes first."""
        self.remove(record, keep_record=True)
        record.reason = None
        self._write(found, record, 0)

    def resume(self, found: FoundFile, record: FileRecord) -> None:
        """Read a file on from where its last piece begins, which may have grown."""
        with self._database.transaction() as connection:
            record.state = FileState.PARTIAL
            start = _drop_last(connection, record)
            record.save(connection)
        self._write(found, record, start)

    def remove(self, record: FileRecord, *, keep_record: bool = False) -> None:
        """Drop the passages of a file."""
        while True:
            with self._database.transaction() as connection:
                record.state = FileState.STALE
                is_done = _drop_some(connection, record, self._reading.transaction_chars)
                if is_done and not keep_record:
                    connection.execute("DELETE FROM files WHERE id = ?", (record.file_id,))
                else:
                    record.save(connection)
            if is_done or self.stopping.is_set():
                return

    def skip(self, record: FileRecord, reason: SkipReason) -> None:
        """Note why a file has no passages."""
        self.remove(record, keep_record=True)
        if self.stopping.is_set():
            return
        record.reason, record.state = reason, FileState.WHOLE
        with self._database.transaction() as connection:
            record.save(connection)

    def _write(self, found: FoundFile, record: FileRecord, start: int) -> None:
        pieces = self._reading.cut(found.path, encoding=self._encoding, start=start)
        try:
            while record.state is not FileState.WHOLE and not self.stopping.is_set():
                self._write_some(pieces, record)
        except SkippedError as error:
            self.skip(record, error.reason)
        except OSError:
            self.skip(record, SkipReason.UNREADABLE)

    def _write_some(self, pieces: Iterator[Piece], record: FileRecord) -> None:
        """One transaction."""
        before = (record.state, record.num_passages, record.num_chars)
        try:
            with self._database.transaction() as connection:
                stop = record.num_chars + self._reading.transaction_chars
                record.state = FileState.WHOLE
                for batch in _batches(pieces):
                    self._insert(connection, record, batch)
                    if record.num_chars >= stop or self.stopping.is_set():
                        record.state = FileState.PARTIAL
                        break
                record.save(connection)
        except BaseException:  # whatever it was, the transaction is taken back, and this with it
            record.state, record.num_passages, record.num_chars = before
            self._vocabulary.forget()
            raise

    def _insert(
        self, connection: sqlite3.Connection, record: FileRecord, batch: list[Piece]
    ) -> None:
        texts = [indexed_text(piece.text) for piece in batch]
        otherwise_s = record.look.mtime_ns / 1e9
        (last,) = connection.execute("SELECT ifnull(max(seq), 0) FROM sqlite_sequence").fetchone()
        connection.executemany(
            "INSERT INTO passages VALUES(?, ?, ?, ?, ?, ?)",
            (
                (
                    *(number, record.file_id, piece.start),
                    otherwise_s if piece.time_s is None else piece.time_s,
                    *(piece.place, piece.text),
                )
                for number, piece in enumerate(batch, last + 1)
            ),
        )
        connection.executemany(
            "INSERT INTO terms(rowid, text) VALUES(?, ?)",
            enumerate(texts, last + 1),
        )
        self._vocabulary.add(connection, texts)
        record.num_passages += len(batch)
        record.num_chars += sum(len(piece.text) for piece in batch)


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    for piece in pieces:
        batch.append(piece)
        if len(batch) == _ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _drop_last(connection: sqlite3.Connection, record: FileRecord) -> int:
    """Drop the last passage of a file, and all that begin with it; where that is, in bytes."""
    (start,) = connection.execute(
        "SELECT max(start) FROM passages WHERE file = ?", (record.file_id,)
    ).fetchone()
    rows = connection.execute(
        "SELECT number, text FROM passages WHERE file = ? AND start = ?", (record.file_id, start)
    ).fetchall()
    _drop(connection, record, rows)
    return int(start or 0)


def _drop_some(connection: sqlite3.Connection, record: FileRecord, num_chars: int) -> bool:
    """Drop about so many characters of a file's passages; whether none is left."""
    dropped = 0
    while dropped < num_chars:
        rows = connection.execute(
            "SELECT number, text FROM passages WHERE file = ? LIMIT ?", (record.file_id, _ROWS)
        ).fetchall()
        if not rows:
            return True
        _drop(connection, record, rows)
        dropped += sum(len(text) for _, text in rows)
    return False


def _drop(connection: sqlite3.Connection, record: FileRecord, rows: list[tuple[int, str]]) -> None:
    connection.executemany(
        "INSERT INTO terms(terms, rowid, text) VALUES('delete', ?, ?)",
        ((number, indexed_text(text)) for number, text in rows),
    )
    connection.executemany(
        "DELETE FROM passages WHERE number = ?", ((number,) for number, _ in rows)
    )
    record.num_passages -= len(rows)
    record.num_chars -= sum(len(text) for _, text in rows)
