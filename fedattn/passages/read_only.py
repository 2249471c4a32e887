"""The database of a store that another process may have open: looked at, and never written."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from fedattn.core.errors import ConfigurationError
from fedattn.passages.database import SCHEMA_VERSION


class ReadOnlyDatabase:
    """One connection that takes no lock which a store would wait for; of one thread.

    Args:
        path: the file that a store has made.

    Raises:
        ConfigurationError: there is no index, or it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise _missing(path)
        self._connection = sqlite3.connect(_address(path), uri=True, isolation_level=None)
        try:
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            self.close()
            raise ConfigurationError(
                f"the index {path} cannot be read: {error}; run this as the user of the node, "
                "and start the node anew if its index is broken"
            ) from None
        if version != SCHEMA_VERSION:
            self.close()
            raise _missing(path) if version == 0 else _other_version(path, version)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, which sees one state of the database throughout."""
        self._connection.execute("BEGIN")
        try:
            yield self._connection
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Give it back; the files are as they were."""
        self._connection.close()


def _address(path: Path) -> str:
    """URI of the file.

    No write-ahead log lies beside it if no store has it open and the last one has ended well.
    SQLite would then leave an empty one behind, unless it is told that the file does not change.
    """
    has_log = Path(f"{path}-wal").exists()
    return f"file:{quote(str(path.absolute()))}?mode=ro" + ("" if has_log else "&immutable=1")


def _missing(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"no index in {path.parent}: start the node once, or give --texts PATH"
    )


def _other_version(path: Path, version: int) -> ConfigurationError:
    return ConfigurationError(
        f"the index {path} has schema {version}, expected {SCHEMA_VERSION}; start the node with "
        "this version of fedattn, which builds it anew"
    )
