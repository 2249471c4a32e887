"""A file as it is now, and digests that tell whether it is the one that was read."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

RACY_NS = 2_000_000_000
"""A file touched within so long before a look may change again with the same times."""
_EDGE_BYTES = 4096
_WHOLE_BYTES = 16 << 20
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at a file: what the file system says, without reading it."""

    identity: str
    size: int
    mtime_ns: int
    ctime_ns: int

    def is_racy(self, now_ns: int) -> bool:
        """Whether a later change could leave all of this as it is."""
        return now_ns - max(self.mtime_ns, self.ctime_ns) < RACY_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """Of the first `size` bytes of a file.

    Attributes:
        head: of the first 4 KiB.
        tail: of the last 4 KiB.
        content: of everything; above 16 MiB, of the first and the last 8 MiB.
    """

    head: bytes
    tail: bytes
    content: bytes


def look_at(path: Path) -> Look:
    """How a file is now.

    Raises:
        OSError: it is gone, or no regular file.
    """
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        raise OSError(f"{path}: no regular file")
    return Look(
        identity=f"{info.st_dev}:{info.st_ino}",
        size=info.st_size,
        mtime_ns=info.st_mtime_ns,
        ctime_ns=info.st_ctime_ns,
    )


def digest(path: Path, size: int, *, edges_only: bool = False) -> Digests:
    """Digests of the first `size` bytes; without that of the content, if only edges matter.

    Raises:
        OSError: it cannot be read.
    """
    with _open(path) as file:
        edge = min(size, _EDGE_BYTES)
        half = size if size <= _WHOLE_BYTES else _WHOLE_BYTES // 2
        ranges = ((0, half), (size - half, size)) if half < size else ((0, half),)
        return Digests(
            head=_hash(file, (0, edge)),
            tail=_hash(file, (size - edge, size)),
            content=b"" if edges_only else _hash(file, *ranges),
        )


def _open(path: Path) -> BinaryIO:
    # the last flag: never wait for a pipe's writer
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    return os.fdopen(os.open(path, flags), "rb")


def _hash(file: BinaryIO, *ranges: tuple[int, int]) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for start, stop in ranges:
        file.seek(start)
        left = stop - start
        while left > 0 and (data := file.read(min(left, _READ_BYTES))):
            found.update(data)
            left -= len(data)
    return found.digest()
