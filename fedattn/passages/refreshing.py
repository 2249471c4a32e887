"""One refresh: everything under the root is looked at, and what changed is read."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from fedattn.core.contexts import SkipReason
from fedattn.passages.cannot_read import CannotReadError
from fedattn.passages.comparing import Change, Comparison, compare, match_records
from fedattn.passages.database import Database
from fedattn.passages.indexing import FileIndexer, Reading
from fedattn.passages.looking import Digests, Look, look_at
from fedattn.passages.records import FileRecord, load_records
from fedattn.texts.listing import FoundFile, Listing, SkippedFile, list_files

HARMLESS = frozenset({SkipReason.EMPTY, SkipReason.BLANK})
"""A single file may be so; it has nothing to give, but nothing is wrong with reading it."""
_NO_DIGESTS = Digests(head=b"", tail=b"", content=b"")


class Refresh:
    """Brings a database up to date with its files.

    Attributes:
        skipped: files that are not in it, after `run`.
    """

    def __init__(self, database: Database, indexer: FileIndexer, reading: Reading) -> None:
        self.skipped: list[SkippedFile] = []
        self._database = database
        self._indexer = indexer
        self._reading = reading
        self._now_ns = reading.now_ns()

    def run(self, root: Path) -> bool:
        """Look at everything; whether anything changed.

        Raises:
            CannotReadError: the folder, or the file that was given, cannot be read.
        """
        listing, is_folder = _list(root)
        self.skipped += listing.skipped
        with self._database.reading() as connection:
            records = load_records(connection)
        looks = list(self._look(listing.files))
        matched, gone = match_records(looks, records)
        for record in gone:
            self._indexer.remove(record)
        changes = [
            self._bring_up(found, look, matched.get(found.name))
            for found, look in looks
            if not self._indexer.stopping.is_set()
        ]
        if not is_folder:
            _check(self.skipped)
        return bool(gone) or any(changes)

    def _look(self, files: Iterable[FoundFile]) -> Iterable[tuple[FoundFile, Look]]:
        for found in files:
            try:
                yield found, look_at(found.path)
            except OSError:
                self.skipped.append(SkippedFile(found.name, SkipReason.UNREADABLE))

    def _bring_up(self, found: FoundFile, look: Look, record: FileRecord | None) -> bool:
        """One file; whether its passages or their file's name changed."""
        try:
            compared = compare(
                found,
                look,
                record,
                self._now_ns,
                lambda file: self._reading.is_resumable(file.path),
            )
        except OSError:
            return self._unreadable(found, look, record)
        self._apply(compared)
        if compared.record.reason is not None:
            self.skipped.append(SkippedFile(found.name, compared.record.reason))
        return compared.is_renamed or compared.change in {Change.GROWN, Change.ANOTHER}

    def _apply(self, compared: Comparison) -> None:
        match compared.change:
            case Change.NONE:
                pass
            case Change.SEEN:
                with self._database.transaction() as connection:
                    compared.record.save(connection)
            case Change.GROWN:
                self._indexer.resume(compared.found, compared.record)
            case Change.ANOTHER:
                self._indexer.read(compared.found, compared.record)

    def _unreadable(self, found: FoundFile, look: Look, record: FileRecord | None) -> bool:
        self.skipped.append(SkippedFile(found.name, SkipReason.UNREADABLE))
        was_so = record is not None and record.reason is SkipReason.UNREADABLE
        if not was_so:
            fresh = FileRecord(name=found.name, look=look, digests=_NO_DIGESTS, is_racy=False)
            if record is not None:
                self._indexer.remove(record)
            self._indexer.skip(fresh, SkipReason.UNREADABLE)
        return not was_so


def _list(root: Path) -> tuple[Listing, bool]:
    try:
        is_folder = stat.S_ISDIR(root.stat().st_mode)
        return (list_files(root) if is_folder else _alone(root)), is_folder
    except OSError as error:
        raise CannotReadError((error.strerror or type(error).__name__).lower()) from None


def _alone(file: Path) -> Listing:
    return Listing([FoundFile(os.fspath(file.name), file)])


def _check(skipped: Iterable[SkippedFile]) -> None:
    for file in skipped:
        if file.reason not in HARMLESS:
            raise CannotReadError(file.reason.words)
