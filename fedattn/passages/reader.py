"""Looking passages up in an index."""

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import PurePath
from typing import Protocol, TypeVar

from fedattn.passages.cannot_read import CannotReadError
from fedattn.passages.database import is_broken
from fedattn.passages.expanding import expand
from fedattn.passages.passage import Hit, Passage, StoreCounts
from fedattn.passages.postings import Postings
from fedattn.passages.query import Unit, read_query
from fedattn.passages.ranking import Ranking
from fedattn.passages.records import load_records

_T = TypeVar("_T")
_COLUMNS = "SELECT number, text, name, place FROM passages JOIN files ON files.id = passages.file "


class Source(Protocol):
    """A database that holds an index."""

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """A connection to look things up with."""

    def close(self) -> None:
        """Give it back."""


class PassageReader:
    """Passages of an index as it is."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def counts(self) -> StoreCounts:
        """What the index holds; which files it leaves out is known where it is refreshed only.

        Raises:
            CannotReadError: the index cannot be read.
        """
        return self._read(count, otherwise=StoreCounts())

    def search(self, words: str, limit: int) -> list[Hit]:
        """Passages that fit a query, best first; none if nothing fits.

        Raises:
            CannotReadError: the index cannot be read.
        """
        units = read_query(words)
        if not units or limit < 1:
            return []
        return self._read(lambda connection: _search(connection, units, limit), otherwise=[])

    def newest(self, limit: int) -> list[Passage]:
        """By the time of the entry, else of the file, newest first; raises as `search`."""
        return self._select("ORDER BY time_s DESC, number DESC LIMIT ?", max(limit, 0))

    def first(self, limit: int) -> list[Passage]:
        """In order of files and places; raises as `search`."""
        return self._read(lambda connection: _first(connection, limit), otherwise=[])

    def get(self, number: int) -> Passage | None:
        """The passage of a number, if it is still there; raises as `search`."""
        return next(iter(self._select("WHERE number = ?", number)), None)

    def close(self) -> None:
        """Give the database back."""
        self._source.close()

    def _select(self, condition: str, value: int) -> list[Passage]:
        return self._read(
            lambda connection: [
                _passage(*row) for row in connection.execute(_COLUMNS + condition, (value,))
            ],
            otherwise=[],
        )

    def _read(self, look_up: Callable[[sqlite3.Connection], _T], otherwise: _T) -> _T:
        """What a look-up finds in one state of the database."""

        def work() -> _T:
            with self._source.reading() as connection:
                return look_up(connection)

        return self._guarded(work, otherwise)

    def _guarded(self, work: Callable[[], _T], otherwise: _T) -> _T:
        """Do something; `otherwise` if the database turned out broken and was repaired."""
        try:
            return work()
        except sqlite3.OperationalError as error:
            raise CannotReadError(f"its index cannot be used: {error}") from None
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise
            self._repair(f"broken: {error}")
            return otherwise

    def _repair(self, why: str) -> None:
        """Do what can be done about a broken database: to a reader, nothing."""
        raise CannotReadError(f"its index is {why}")


def count(connection: sqlite3.Connection) -> StoreCounts:
    """What a database holds."""
    num_files, num_passages, num_chars, last_number = connection.execute(
        "SELECT count(*), ifnull(sum(num_passages), 0), ifnull(sum(num_chars), 0), "
        "(SELECT ifnull(max(number), 0) FROM passages) FROM files WHERE num_passages > 0"
    ).fetchone()
    return StoreCounts(
        num_passages=num_passages,
        num_chars=num_chars,
        num_files=num_files,
        last_number=last_number,
    )


def _search(connection: sqlite3.Connection, units: list[Unit], limit: int) -> list[Hit]:
    ranking = Ranking(Postings(connection), expand(connection, units))
    best = ranking.best(limit)
    found = _passages(connection, [one.number for one in best])
    return [
        Hit(passage=found[one.number], score=one.score, coverage=one.coverage)
        for one in best
        if one.number in found
    ]


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
