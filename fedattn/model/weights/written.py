"""Whether a file of weights is still the one that was written.

Weights that were overwritten in part load without a word, and the node that has them joins under
the fingerprint of their source. So a note beside the file, `weights.json`, says its length and its
SHA-256.

Hashing takes 0.13 s for the 92 MiB of the embedded model on one core of a server, more on small
boards and for larger models. So a file is hashed once for each length, inode and time of change,
which the note remembers: most starts read no more than these. Where the folder may not be written,
every start hashes. What spoils a file without the file system's knowledge, as a disk does, is not
seen until the file is copied or touched.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

NOTE_NAME = "weights.json"
_Stamp = list[int]
"""Length, inode and time of change [ns] of a file that was hashed."""


def note_written(file: Path) -> None:
    """Write the note of a file that is complete, beside it.

    Raises:
        OSError: one cannot be read, or the other cannot be written.
    """
    _write_note(file, _hash(file), _stamp(file))


def require_whole(file: Path) -> None:
    """Compare a file with its note.

    Takes no memory to speak of: a file that is to be mapped later is not mapped for this.

    Raises:
        OSError: one of the two is missing, or cannot be read.
        ValueError: they differ, or the note is damaged.
    """
    stamp = _stamp(file)
    digest, noted = _read_note(file)
    if stamp == noted:
        return
    if stamp[0] != noted[0]:
        raise ValueError(f"{file.name} has {stamp[0]} bytes, expected {noted[0]}")
    if (found := _hash(file)) != digest:
        raise ValueError(f"SHA-256 of {file.name} is {found[:12]}, expected {digest[:12]}")
    with suppress(OSError):  # the folder may not be written
        _write_note(file, digest, stamp)


def _read_note(file: Path) -> tuple[str, _Stamp]:
    note: Any = json.loads((file.parent / NOTE_NAME).read_text())
    try:
        return str(note["sha256"]), [int(note[key]) for key in ("size", "inode", "mtime_ns")]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{NOTE_NAME} is damaged") from error


def _write_note(file: Path, digest: str, stamp: _Stamp) -> None:
    """In one step: other processes read it meanwhile, or write the same."""
    note = {"sha256": digest} | dict(zip(("size", "inode", "mtime_ns"), stamp, strict=True))
    new = file.parent / f".{NOTE_NAME}-{os.getpid()}"
    try:
        new.write_text(json.dumps(note, indent=2) + "\n")
        new.replace(file.parent / NOTE_NAME)
    finally:
        new.unlink(missing_ok=True)


def _stamp(file: Path) -> _Stamp:
    found = file.stat()
    return [found.st_size, found.st_ino, found.st_mtime_ns]


def _hash(file: Path) -> str:
    """Hex SHA-256, by reads of a few hundred KiB."""
    with file.open("rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
