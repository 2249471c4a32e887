"""The folder where prepared models live, and what can go wrong with a folder."""

import errno
import glob
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from fedattn.core.errors import FedAttnError, ModelError

CACHE_VARIABLE = "FEDATTN_CACHE"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_IN_ITS_PLACE = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR}


def default_cache_dir() -> Path:
    """`FEDATTN_CACHE`, or `~/.cache/fedattn`.

    Raises:
        ModelError: this user has no home folder.
    """
    configured = os.environ.get(CACHE_VARIABLE) or "~/.cache/fedattn"
    try:
        return Path(configured).expanduser()
    except RuntimeError as error:
        raise ModelError(
            f"no home folder is known for {configured}; set {CACHE_VARIABLE} to a whole path"
        ) from error


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Be the only process that writes a folder; makes its parents.

    Raises:
        ModelError: nothing can be written there.
    """
    lock = FileLock(f"{folder}.lock")
    with _writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def written_at_once(folder: Path) -> Iterator[Path]:
    """A folder beside it to write into, which takes its name at the end.

    The caller has claimed the folder: what another run began and did not end is removed. Whoever
    may read what else this user makes may read it.

    Raises:
        ModelError: it cannot be written; nothing is left of it.
    """
    with _writing(folder):
        prefix = f".preparing-{folder.name}-"
        for leftover in folder.parent.glob(f"{glob.escape(prefix)}*"):  # of a run that was ended
            shutil.rmtree(leftover, ignore_errors=True)
        staging = folder.parent / f"{prefix}{secrets.token_hex(4)}"
        staging.mkdir()
        try:
            yield staging
            _let_read(staging)
            shutil.rmtree(folder, ignore_errors=True)  # left by an interrupted run
            staging.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _let_read(folder: Path) -> None:
    """Give files the mode that the folder has of the user's umask: safetensors writes private ones.

    The umask itself cannot be read without setting it, for all threads.
    """
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say in one line why a folder cannot be written, and what to do."""
    try:
        yield
    except FedAttnError:
        raise
    except Exception as error:  # a border: libraries in Rust tell full disks by other classes
        number = _error_number(error)
        if number is None:
            raise
        raise ModelError(_explain(number, folder)) from error


def _error_number(error: Exception) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    named = re.search(r"os error (\d+)", str(error))
    return int(named[1]) if named else None


def _explain(number: int, folder: Path) -> str:
    place, reason = folder.parent, os.strerror(number).lower()
    elsewhere = f"set {CACHE_VARIABLE} to a folder elsewhere"
    if number in _FULL:
        free = shutil.disk_usage(place).free >> 20
        return f"no room in {place} ({reason}, {free} MiB free); make room there, or {elsewhere}"
    if number in _IN_ITS_PLACE:
        remedy = "move away what is in its place"
    else:
        remedy = "let this user write there"
    return f"cache folder {place} cannot be written ({reason}); {remedy}, or {elsewhere}"
