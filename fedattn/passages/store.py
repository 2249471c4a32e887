"""The store of a node's passages."""

import threading
from dataclasses import replace
from pathlib import Path

from fedattn.passages.database import Database
from fedattn.passages.indexing import FileIndexer, Reading
from fedattn.passages.passage import StoreCounts
from fedattn.passages.reader import PassageReader, count
from fedattn.passages.refreshing import Refresh
from fedattn.texts.listing import SkippedFile


class PassageStore(PassageReader):
    """Passages of a file or folder, brought up to date when asked; usable from any thread.

    One thread refreshes at a time; searches go on meanwhile, over what was there before. In memory
    they wait for the transaction that is being written. A database that turns out broken is built
    anew, for a refresh to fill.

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
        super().__init__(self._database)
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
        """What is there by now; files that are left out as of the last refresh."""
        if self._refreshing.locked():  # a first look at a large folder takes minutes
            self._count()
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

    def close(self) -> None:
        """Give the database back; a refresh under way ends early, and another store resumes it."""
        self._indexer.stopping.set()
        with self._refreshing:
            super().close()

    def _refresh(self, root: Path) -> bool:
        refresh = Refresh(self._database, self._indexer, self._reading)
        try:
            return refresh.run(root)
        finally:
            self._skipped = tuple(sorted(refresh.skipped, key=lambda file: file.name))
            self._count()

    def _repair(self, why: str) -> None:
        self._database.rebuild(why)
        self._count()

    def _count(self) -> None:
        with self._database.reading() as connection:
            self._counts = replace(count(connection), skipped=self._skipped)
