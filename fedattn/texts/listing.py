"""Which files of a folder are private texts."""

import os
import stat
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath

from fedattn.core.contexts import SkipReason
from fedattn.texts.kinds import KINDS, kind_of

SUFFIXES = frozenset(KINDS)
"""In lower case; any case is taken. Names of rotated logs are known too."""
MAX_ENTRIES = 10_000
"""Entries of a folder and its sub-folders that are looked at."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to read; its name is relative to the folder, for this node's eyes only."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file, or a folder, that is not read, and why."""

    name: str
    reason: SkipReason


@dataclass(slots=True)
class Listing:
    """What lies in a folder, in order of relative paths."""

    files: list[FoundFile] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)


def list_files(root: Path) -> Listing:
    """Files of known kinds below a folder, and what was left out.

    Hidden entries (a leading dot, which `._` files of macOS have too) are passed over without a
    word. Links are followed inside the folder only; nothing is read twice, so loops end.

    Raises:
        OSError: the folder itself cannot be listed.
    """
    walk = _Walk(root)
    walk.visit(root, "")
    while walk.folders and walk.has_room:
        folder = walk.folders.pop()
        try:
            walk.visit(folder.path, folder.name + "/")
        except OSError:
            walk.skip(folder.name, SkipReason.UNREADABLE)
    walk.listing.files.sort(key=lambda file: PurePath(file.name).parts)
    return walk.listing


class _Walk:
    """One walk through a folder."""

    def __init__(self, root: Path) -> None:
        self.listing = Listing()
        self.folders: list[FoundFile] = []  # still to visit
        self.has_room = True
        self._root = root.resolve()
        self._num_entries = 0
        self._seen = {_identity(root.stat())}

    def skip(self, name: str, reason: SkipReason) -> None:
        self.listing.skipped.append(SkippedFile(name, reason))

    def visit(self, folder: Path, prefix: str) -> None:
        """Look at the entries of one folder, in order of name."""
        with os.scandir(folder) as entries:
            seen = list(islice((e for e in entries if e.name[0] != "."), MAX_ENTRIES + 1))
        for entry in sorted(seen, key=lambda entry: entry.name):
            self._num_entries += 1
            if self._num_entries > MAX_ENTRIES:
                self.skip(prefix + entry.name, SkipReason.TOO_MANY)
                self.has_room = False
                break
            found = FoundFile(prefix + entry.name, Path(entry.path))
            taken = self._take(found, entry)
            if isinstance(taken, SkipReason):
                self.skip(found.name, taken)
            else:
                taken.append(found)

    def _take(self, found: FoundFile, entry: "os.DirEntry[str]") -> list[FoundFile] | SkipReason:
        """Where an entry belongs, or why it is left out."""
        try:
            info = entry.stat()
            if entry.is_symlink() and not found.path.resolve().is_relative_to(self._root):
                return SkipReason.OUTSIDE
        except (OSError, RuntimeError):  # the latter: a link to itself
            return SkipReason.UNREADABLE
        return self._place(found, info)

    def _place(self, found: FoundFile, info: os.stat_result) -> list[FoundFile] | SkipReason:
        is_folder = stat.S_ISDIR(info.st_mode)
        if not is_folder and not stat.S_ISREG(info.st_mode):  # a pipe could be waited for for ever
            return SkipReason.UNREADABLE
        if not is_folder and kind_of(found.path.name) is None:
            return SkipReason.UNKNOWN_KIND
        if _identity(info) in self._seen:
            return SkipReason.DUPLICATE
        self._seen.add(_identity(info))
        return self.folders if is_folder else self.listing.files


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino
