"""The store of a node's passages."""

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import TypeVar

from fedattn.passages.cannot_read import CannotReadError
from fedattn.passages.database import Database, is_broken
from fedattn.passages.expanding import expand
from fedattn.passages.indexing import FileIndexer, Reading
from fedattn.passages.passage import Hit, Passage, StoreCounts
from fedattn.passages.postings import Postings
from fedattn.passages.query import Unit, read_query
from fedattn.passages.ranking import Ranking
from fedattn.passages.records import load_records
from fedattn.passages.refreshing import Refresh
from fedattn.texts.listing import SkippedFile

_T = TypeVar("_T")
_COLUMNS = "SELECT number, text, name, place FROM passages JOIN files ON files.id = passages.file "


class PassageStore:
    """Passages of a file or folder, brought up to date when asked; usable from any thread.

    One thread refreshes at a time; searches go on meanwhile, over what was there before. In memory
    they wait for the transaction that is being written.

    Args:
        root: a file or folder of texts; None: the store is empty.
        database: where the index lies, for this user alone; None: in memory.
        encoding: of files that are neither UTF-8 nor UTF-16; None if only a certain one counts.
        reading: how files are read; None: as always.

    Raises:
        ConfigurationError: another store uses the database, or it cannot be written.
    """

    def __init__(
        self,
        root: Path | None,
        database: Path | None,
        *,
        encoding: str | None = None,
        reading: Reading | None = None,
    ) -> None:
        self._root = root
        self._database = Database(database, root, encoding)
        self._reading = reading or Reading()
        self._indexer = FileIndexer(self._database, self._reading, encoding)
        self._refreshing = threading.Lock()
        self._skipped: tuple[SkippedFile, ...] = ()
        self._counts = StoreCounts()
        self._guarded(self._count, otherwise=None)

    @property
    def root(self) -> Path | None:
        """What the passages are of."""
        return self._root

    @property
    def counts(self) -> StoreCounts:
        """As of the last refresh."""
        return self._counts

    def refresh(self) -> bool:
        """Bring the store up to date; whether anything changed.

        Raises:
            CannotReadError: the folder, or the file that was given, cannot be read; or the index
                cannot be written.
        """
        root = self._root
        if root is None:
            return False
        with self._refreshing:
            return self._guarded(lambda: self._refresh(root), otherwise=True)

    def search(self, words: str, limit: int) -> list[Hit]:
        """Passages that fit a query, best first; none if nothing fits.

        Raises:
            CannotReadError: the index cannot be read.
        """
        units = read_query(words)
        if not units or limit < 1:
            return []
        return self._read(lambda connection: self._search(connection, units, limit))

    def newest(self, limit: int) -> list[Passage]:
        """By the time of the entry, else of the file, newest first; raises as `search`."""
        return self._select("ORDER BY time_s DESC, number DESC LIMIT ?", max(limit, 0))

    def first(self, limit: int) -> list[Passage]:
        """In order of files and places; raises as `search`."""
        return self._read(lambda connection: _first(connection, limit))

    def get(self, number: int) -> Passage | None:
        """The passage of a number, if it is still there; raises as `search`."""
        return next(iter(self._select("WHERE number = ?", number)), None)

    def close(self) -> None:
        """Give the database back; a refresh under way ends early, and another store resumes it."""
        self._indexer.stopping.set()
        with self._refreshing:
            self._database.close()

    def _refresh(self, root: Path) -> bool:
        refresh = Refresh(self._database, self._indexer, self._reading)
        try:
            return refresh.run(root)
        finally:
            self._skipped = tuple(sorted(refresh.skipped, key=lambda file: file.name))
            self._count()

    @staticmethod
    def _search(connection: sqlite3.Connection, units: list[Unit], limit: int) -> list[Hit]:
        ranking = Ranking(Postings(connection), expand(connection, units))
        best = ranking.best(limit)
        found = _passages(connection, [one.number for one in best])
        return [
            Hit(passage=found[one.number], score=one.score, coverage=one.coverage)
            for one in best
            if one.number in found
        ]

    def _select(self, condition: str, value: int) -> list[Passage]:
        return self._read(
            lambda connection: [
                _passage(*row) for row in connection.execute(_COLUMNS + condition, (value,))
            ]
        )

    def _read(self, look_up: Callable[[sqlite3.Connection], list[_T]]) -> list[_T]:
        """What a look-up finds in one state of the database."""

        def work() -> list[_T]:
            with self._database.reading() as connection:
                return look_up(connection)

        return self._guarded(work, otherwise=[])

    def _guarded(self, work: Callable[[], _T], otherwise: _T) -> _T:
        """Do something; a database that turns out broken is built anew, for a refresh to fill."""
        try:
            return work()
        except sqlite3.OperationalError as error:
            raise CannotReadError(f"its index cannot be used: {error}") from None
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise
            self._database.rebuild(f"broken: {error}")
            self._count()
            return otherwise

    def _count(self) -> None:
        with self._database.reading() as connection:
            num_files, num_passages, num_chars = connection.execute(
                "SELECT count(*), ifnull(sum(num_passages), 0), ifnull(sum(num_chars), 0) "
                "FROM files WHERE num_passages > 0"
            ).fetchone()
        self._counts = StoreCounts(
            num_passages=num_passages,
            num_chars=num_chars,
            num_files=num_files,
            skipped=self._skipped,
        )


def _first(connection: sqlite3.Connection, limit: int) -> list[Passage]:
    found: list[Passage] = []
    records = load_records(connection)
    for record in sorted(records, key=lambda record: PurePath(record.name).parts):
        if len(found) >= limit:
            break
        rows = connection.execute(
            _COLUMNS + "WHERE file = ? ORDER BY number LIMIT ?",
            (record.file_id, limit - len(found)),
        )
        found += [_passage(*row) for row in rows]
    return found


def _passages(connection: sqlite3.Connection, numbers: Sequence[int]) -> dict[int, Passage]:
    places = ", ".join("?" * len(numbers))
    rows = connection.execute(_COLUMNS + f"WHERE number IN ({places})", numbers)
    return {row[0]: _passage(*row) for row in rows}


def _passage(number: int, text: str, name: bytes, place: str) -> Passage:
    return Passage(number=number, text=text, file=os.fsdecode(name), place=place)
