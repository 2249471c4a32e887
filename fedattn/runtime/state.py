"""The folder where a service keeps what outlives it: approvals, the audit log, jobs."""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedattn.core.errors import ConfigurationError

APPROVALS_FILE = "approvals.json"
AUDIT_FILE = "audit.jsonl"
PASSAGES_FILE = "passages.db"
JOBS_FILE = "jobs.db"
LOCK_WITHIN_S = 5.0
"""Longest wait for another process that changes a file; each does so in milliseconds."""
_LOCK_PAUSE_S = 0.01
_ONLY_OWNER = 0o700


def state_root() -> Path:
    """The folder fedattn of `XDG_STATE_HOME`, or `~/.local/state/fedattn`.

    Each node has a folder in it.

    Raises:
        ConfigurationError: this user has no home folder.
    """
    configured = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        return Path(configured).expanduser() / "fedattn"
    except RuntimeError:
        raise ConfigurationError(
            "no home folder is known for the node's state; give --state DIR"
        ) from None


def default_state_dir(node_id: str) -> Path:
    """The folder of one node within `state_root`; raises as that."""
    is_path = not node_id.strip(".")
    return state_root() / (node_id.replace(".", "_") if is_path else node_id)


def find_state_dir(given: Path | None, otherwise: str = "") -> Path:
    """The folder of a node's state, for a command: the one that was given, or the only one here.

    Args:
        given: by the user.
        otherwise: what the user may do instead of giving one, for the message.

    Raises:
        ConfigurationError: it is not there, or several could be meant.
    """
    if given is not None:
        if not given.is_dir():
            raise ConfigurationError(
                f"state folder {given}: no such folder; give the one that the node has as --state"
            )
        return given
    root = state_root()
    try:
        found = sorted(folder for folder in root.iterdir() if folder.is_dir())
    except FileNotFoundError:
        found = []
    if len(found) != 1:
        there = ", ".join(folder.name for folder in found[:8]) or "none"
        raise ConfigurationError(
            f"expected the state of one node in {root}, found {there}; give --state DIR{otherwise}"
            f"; fedattn up keeps it where its file says `state =`, and prints where"
        )
    return found[0]


def make_state_dir(folder: Path) -> Path:
    """The folder, made for this user alone if it is not there.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        folder.mkdir(mode=_ONLY_OWNER, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ConfigurationError(
            f"state folder {folder}: cannot be written ({reason}); let this user write there, or "
            f"give another with --state DIR"
        ) from error


@contextmanager
def locked(path: Path, *, pause: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Be the only process, and the only thread, within blocks on this file, which is made.

    Args:
        path: of the file.
        pause: sleeps for so many seconds, between two tries.

    Raises:
        BlockingIOError: another stays within for longer than `LOCK_WITHIN_S`.
        OSError: it cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _give_to_owner(descriptor, path.parent)
        _lock(descriptor, pause)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, pause: Callable[[float], None]) -> None:
    pauses_left = round(LOCK_WITHIN_S / _LOCK_PAUSE_S)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if pauses_left == 0:
                raise
            pauses_left -= 1
            pause(_LOCK_PAUSE_S)
        else:
            return


@contextmanager
def failing_in_one_line(what: str, path: Path, remedy: str) -> Iterator[None]:
    """For work on a file that processes share under a lock.

    Args:
        what: the file holds, for messages.
        path: of the file.
        remedy: for a file that cannot be read or written.

    Raises:
        ConfigurationError: another process holds the lock, or the file is out of reach.
    """
    try:
        yield
    except BlockingIOError:
        raise ConfigurationError(
            f"{what} {path}: another process has held {path.name}.lock for "
            f"{LOCK_WITHIN_S:g} s; end it, or try again"
        ) from None
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ConfigurationError(
            f"{what} {path}: cannot be read or written ({reason}); {remedy}"
        ) from error


def replace_file(path: Path, content: bytes) -> None:
    """Give a file new content at once: readers see the old or the new, also after a power cut.

    Raises:
        OSError: it cannot be written; the old one is as it was.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
            _give_to_owner(descriptor, path.parent)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _give_to_owner(descriptor: int, folder: Path) -> None:
    """What root writes into a service's folder stays readable for the service."""
    owner = folder.stat()
    if os.geteuid() == 0 != owner.st_uid:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
