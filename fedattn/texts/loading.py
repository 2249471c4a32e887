"""Bytes of the files of a private context, and the text they make."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from fedattn.core.contexts import SkipReason
from fedattn.texts.decoding import decode
from fedattn.texts.kinds import DOCUMENTS, Kind, is_packed, kind_of
from fedattn.texts.listing import FoundFile, Listing, SkippedFile, list_files
from fedattn.texts.markup import declared_encoding, text_of
from fedattn.texts.opening import open_regular

MAX_BYTES = 16 << 20
"""Of all files of a context together."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Files as they are now: names, bytes, and what was left out."""

    files: tuple[tuple[str, bytes], ...]
    skipped: tuple[SkippedFile, ...]

    def digest(self) -> bytes:
        """Equal for equal names, contents and gaps."""
        digest = hashlib.sha256()
        for name, data in (
            *self.files,
            *((skipped.name, skipped.reason.encode()) for skipped in self.skipped),
        ):
            encoded = os.fsencode(name)
            digest.update(b"%d:%d:" % (len(encoded), len(data)) + encoded)
            digest.update(data)
        return digest.digest()


@dataclass(frozen=True, slots=True)
class Texts:
    """The text of a context, and the files that are not in it."""

    text: str = ""
    num_files: int = 0
    skipped: tuple[SkippedFile, ...] = ()


def load(path: Path, max_bytes: int = MAX_BYTES) -> Loaded:
    """Bytes of a file, whatever its suffix, or of a folder's files in order of relative paths.

    A file that does not fit any more is left out alone; smaller ones after it are read.

    Raises:
        OSError: nothing is there, or the folder cannot be listed.
    """
    is_folder = stat.S_ISDIR(path.stat().st_mode)
    listing = list_files(path) if is_folder else Listing([FoundFile(path.name, path)])
    files: list[tuple[str, bytes]] = []
    skipped = listing.skipped
    room = max_bytes
    for file in listing.files:
        data = _read(file, room)
        if isinstance(data, SkipReason):
            skipped.append(SkippedFile(file.name, data))
        else:
            files.append((file.name, data))
            room -= len(data)
    return Loaded(tuple(files), tuple(skipped))


def _read(file: FoundFile, room: int) -> bytes | SkipReason:
    if is_packed(file.name) or kind_of(file.name) in DOCUMENTS:
        return SkipReason.UNKNOWN_KIND  # these are read in pieces only
    try:
        with open_regular(file.path) as opened:
            if os.fstat(opened.fileno()).st_size > room:
                return SkipReason.TOO_LARGE
            data = opened.read(room + 1)  # it may have grown meanwhile
    except OSError:
        return SkipReason.UNREADABLE
    return SkipReason.TOO_LARGE if len(data) > room else data or SkipReason.EMPTY


def decode_all(loaded: Loaded, fallback: str | None = None) -> Texts:
    """The text of all files, a blank line between two; see `decode` for the fallback."""
    parts: list[str] = []
    skipped = list(loaded.skipped)
    for name, data in loaded.files:
        text = _text(name, data, fallback)
        if isinstance(text, SkipReason):
            skipped.append(SkippedFile(name, text))
        else:
            parts.append(text)
    skipped.sort(key=lambda file: file.name)
    return Texts("\n\n".join(parts), len(parts), tuple(skipped))


def _text(name: str, data: bytes, fallback: str | None) -> str | SkipReason:
    is_markup = kind_of(name) is Kind.PAGE
    text = decode(data, (declared_encoding(data) if is_markup else None) or fallback)
    if isinstance(text, SkipReason):
        return text
    return (text_of(text) if is_markup else text).strip() or SkipReason.BLANK
