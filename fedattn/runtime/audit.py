"""An append-only log of what a node gave, in which nothing can be changed without a trace.

One JSON object a line; each carries the SHA-256 of the line before, so that a line that is changed,
added or removed breaks the chain there. The last lines can be cut off unseen: only who noted the
head, the hash of the last line, elsewhere can tell. The log holds ids, sizes and outcomes, no text.
"""

import errno
import fcntl
import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import structlog

from fedattn.core.errors import ConfigurationError
from fedattn.runtime.audit_chain import (
    MAX_LINE_BYTES,
    NO_HASH,
    Chain,
    hash_line,
    log_files,
    read_chain,
)
from fedattn.runtime.state import sync_folder

CHAIN_BROKEN = "chain_broken"
"""Event of the first line of a chain that begins because the one before it was damaged."""
MAX_DETAIL = 1000
DEFAULT_MAX_BYTES = 8 << 20
DEFAULT_MAX_FILES = 16

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """What happened, without any text.

    Attributes:
        event: what kind of thing, such as asked, sent, declined.
        session, publisher, subject, purpose: as the session says them.
        blocks: zero-based blocks at which rows were sent.
        share: what the node was told of the question.
        passages: numbers of the passages that took part.
        rows: rows of one head at each of them, in the mean.
        keep_ratio: share of all tokens that those are, 0 to 1.
        answers: tokens whose queries were answered, those of each block counted; then no rows left.
        bytes: bytes in all.
        receivers: ids of the nodes that got rows.
        outcome: how it ended, such as complete or policy_refused.
        detail: anything else, such as the rule that refused; cut at 1000 characters.
    """

    event: str
    session: str = ""
    publisher: str = ""
    subject: str = ""
    purpose: str = ""
    share: str = ""
    passages: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    rows: int = 0
    keep_ratio: float = 0.0
    answers: int = 0
    bytes: int = 0
    receivers: tuple[str, ...] = ()
    outcome: str = ""
    detail: str = ""


@dataclass(slots=True)
class AuditLog:
    """Writes one log; its process is the only one that does. Safe to call from any thread.

    `append` waits for the disk, some milliseconds; on an event loop, call it in a thread.

    Args:
        path: of the file that is written now; full ones get numbers, such as audit.jsonl.000001.
        max_bytes: from here on the file is put aside, and the chain goes on in the next.
        max_files: full files that are kept; the oldest goes first.
        now: the time, with its zone.

    Raises:
        ConfigurationError: another process writes this log, or it cannot be written.
    """

    path: Path
    max_bytes: int = DEFAULT_MAX_BYTES
    max_files: int = DEFAULT_MAX_FILES
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    head: str = field(init=False, default=NO_HASH)
    _number: int = field(init=False, default=0)
    _descriptor: int = field(init=False, default=-1)
    _is_closed: bool = field(init=False, default=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        try:
            self._open()
            self._continue()
        except OSError as error:
            self.close()
            raise _unwritable(self.path, error) from error
        except BaseException:
            self.close()
            raise

    def append(self, event: AuditEvent) -> str:
        """Write it down; it is on the disk when this returns.

        Returns:
            The head: the hash of the new line.

        Raises:
            ConfigurationError: it cannot be written, such as on a full disk; what is not logged
                should not happen.
        """
        with self._lock:
            try:
                return self._append(event)
            except OSError as error:
                raise _unwritable(self.path, error) from error

    def close(self) -> None:
        """Let other processes write it."""
        with self._lock:
            self._is_closed = True
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _append(self, event: AuditEvent) -> str:
        if self._descriptor < 0:
            self._open_again()
        line = self._line(event)
        size = os.fstat(self._descriptor).st_size
        if size > 0 and size + len(line) > self.max_bytes:
            self._rotate()
            size = 0
        try:
            self._write(line)
        except OSError:
            os.ftruncate(self._descriptor, size)  # or the next line would be glued to a piece
            raise
        self.head = hash_line(line[:-1])
        self._number += 1
        return self.head

    def _write(self, line: bytes) -> None:
        if os.write(self._descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._descriptor)

    def _line(self, event: AuditEvent) -> bytes:
        fields: dict[str, Any] = {
            "number": self._number + 1,
            "time": self.now().isoformat(timespec="milliseconds"),
            **asdict(event),
            "before": self.head,
        }
        fields["detail"] = event.detail[:MAX_DETAIL]
        line = json.dumps(fields).encode()
        if len(line) > MAX_LINE_BYTES:
            raise ConfigurationError(
                f"audit log {self.path}: an entry of {len(line)} bytes, at most {MAX_LINE_BYTES} "
                f"are written"
            )
        return line + b"\n"

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(descriptor, 0o600)
            sync_folder(self.path.parent)
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigurationError(
                f"audit log {self.path}: another process writes it; give each node a state folder "
                f"of its own (--state DIR)"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _open_again(self) -> None:
        """After a new file could not be opened, for want of room or of descriptors."""
        if self._is_closed:
            raise OSError(errno.EBADF, "it is closed")
        self._open()
        self._continue()

    def _continue(self) -> None:
        """Go on where the file ends, or where the last full one did."""
        files = log_files(self.path)
        for path in reversed(files):
            chain = read_chain(path)
            if chain.broken_line:
                self._put_aside(chain)
                return
            if chain.num_lines:
                self.head, self._number = chain.head, chain.last_number
                return

    def _put_aside(self, broken: Chain) -> None:
        """Begin a new chain in a new file, which says so; the damaged one stays as it is."""
        for path in log_files(self.path):  # full files belong to the chain that ends here
            name = _free_name(path)
            log.error("audit_chain_broken", line=broken.broken_line, why=broken.why, kept=str(name))
            if path == self.path:
                self._replace(name)
            else:
                path.rename(name)
        where = f"line {broken.broken_line}: {broken.why}"
        self._append(AuditEvent(event=CHAIN_BROKEN, detail=f"of the log before, {where}"))

    def _rotate(self) -> None:
        full = [path for path in log_files(self.path) if path != self.path]
        last = int(full[-1].suffix[1:]) if full else 0
        self._replace(self.path.with_name(f"{self.path.name}.{last + 1:06d}"))
        for path in full[: max(0, len(full) + 1 - self.max_files)]:
            path.unlink()

    def _replace(self, name: Path) -> None:
        """Give the file another name, and open a new one."""
        self.path.rename(name)
        os.close(self._descriptor)
        self._descriptor = -1
        self._open()


def _free_name(path: Path) -> Path:
    """Another name for a damaged file."""
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in count(1))
    return next(name for name in names if not name.exists())


def _unwritable(path: Path, error: OSError) -> ConfigurationError:
    reason = (error.strerror or type(error).__name__).lower()
    return ConfigurationError(
        f"audit log {path}: cannot be written ({reason}); make room, or let this user write there"
    )
