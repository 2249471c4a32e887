"""The SQLite database of a store: who may use it, its schema, and what happens to a broken one."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from filelock import FileLock, Timeout

from fedattn.core.errors import ConfigurationError
from fedattn.passages.words import TOKENIZER

SCHEMA_VERSION = 1
_CACHE_KIB = 16 << 10
_WRITE_BUFFER = 16 << 20
"""Bytes of postings that FTS5 holds before it writes them as a segment."""
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SUFFIXES = ("", "-wal", "-shm")
_SCHEMA = f"""
CREATE TABLE about(root BLOB NOT NULL, encoding TEXT NOT NULL);
CREATE TABLE files(
  id INTEGER PRIMARY KEY, name BLOB NOT NULL, identity TEXT NOT NULL, size INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, head BLOB NOT NULL, tail BLOB NOT NULL,
  content BLOB NOT NULL, is_racy INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT,
  num_passages INTEGER NOT NULL DEFAULT 0, num_chars INTEGER NOT NULL DEFAULT 0);
CREATE TABLE passages(
  number INTEGER PRIMARY KEY AUTOINCREMENT, file INTEGER NOT NULL, start INTEGER NOT NULL,
  time_s REAL NOT NULL, place TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX passages_by_file ON passages(file, start);
CREATE INDEX passages_by_time ON passages(time_s);
CREATE VIRTUAL TABLE terms USING fts5(
  text, content='', columnsize=0, tokenize="{TOKENIZER}");
CREATE TABLE vocabulary(id INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE);
CREATE VIRTUAL TABLE fragments USING fts5(
  word, content='vocabulary', content_rowid='id', columnsize=0, tokenize='trigram');
"""
"""Texts stand in it once: `terms` and `fragments` hold postings only."""

log = structlog.get_logger(__name__)


class Database:
    """One writer and one reader connection; in memory they are the same.

    Args:
        path: the file, made for this user alone; None: in memory.
        root: what the texts are of; a database of another root is built anew.
        encoding: that older files are read with; likewise.

    Raises:
        ConfigurationError: another store uses the file, or it cannot be written.
    """

    def __init__(self, path: Path | None, root: Path | None, encoding: str | None) -> None:
        self._path = path
        folder = b"" if root is None else os.fsencode(root.resolve())
        self._about = (folder, encoding or "")
        self._writing, self._reading = threading.RLock(), threading.RLock()
        self._connections: list[sqlite3.Connection] = []
        self._lock = None if path is None else _lock(path)
        self._open()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction of the writer: all of it, or nothing after an error."""
        with self._writing, self._memory_only_reading(), self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            yield self._writer

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The reader, for one caller at a time."""
        with self._reading:
            yield self._reader

    def rebuild(self, why: str) -> None:
        """Drop everything."""
        with self._writing, self._reading:
            log.warning("passages_rebuilt", why=why)
            self._close_connections()
            self._remove()
            self._open()

    def close(self) -> None:
        with self._writing, self._reading:
            self._close_connections()
            if self._lock is not None:
                self._lock.release()

    def _open(self) -> None:
        try:
            why = self._connect()
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                self.close()
                raise ConfigurationError(
                    f"the index {self._path} cannot be opened: {error}; expected a file that this "
                    "process may write, on a disk with room"
                ) from None
            why = f"broken: {error}"
        if why:
            self.rebuild(why)

    def _connect(self) -> str:
        """Open, and make the schema of an empty database; why it has to be built anew, if so."""
        if self._path is not None:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._writer = self._reader = self._connection()
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and not self._writer.execute("SELECT 1 FROM sqlite_master").fetchone():
            self._make()
        elif version != SCHEMA_VERSION:
            return f"it has schema {version}, expected {SCHEMA_VERSION}"
        elif self._writer.execute("SELECT * FROM about").fetchone() != self._about:
            return "it is of another folder or encoding"
        if self._path is not None:
            self._reader = self._connection()
        return ""

    def _connection(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path or ":memory:", check_same_thread=False, isolation_level=None
        )
        self._connections.append(connection)
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _make(self) -> None:
        with self._writer:
            self._writer.executescript(f"BEGIN; {_SCHEMA}")
            self._writer.execute("INSERT INTO about VALUES(?, ?)", self._about)
            self._writer.execute(
                "INSERT INTO terms(terms, rank) VALUES('hashsize', ?)", (_WRITE_BUFFER,)
            )
            self._writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _memory_only_reading(self) -> Iterator[None]:
        if self._path is not None:
            yield
            return
        with self._reading:  # the one connection must not show half a transaction
            yield

    def _close_connections(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def _remove(self) -> None:
        for suffix in _SUFFIXES if self._path is not None else ():
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)


def is_broken(error: sqlite3.DatabaseError) -> bool:
    """Whether an error says that the file is no sound database."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN


def _lock(path: Path) -> FileLock:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock", mode=0o600)
        lock.acquire(blocking=False)
    except Timeout:
        raise ConfigurationError(
            f"the index {path} is in use by another process; give each node a state folder of "
            "its own"
        ) from None
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ConfigurationError(
            f"the index {path} cannot be written: {reason}; expected a folder that this process "
            "may write"
        ) from None
    return lock
