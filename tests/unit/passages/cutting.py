"""A cutter that counts, and files whose times a test sets."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fedattn.core.contexts import SkipReason
from fedattn.passages.indexing import Reading
from fedattn.passages.store import PassageStore
from fedattn.texts.packing import Piece
from fedattn.texts.skipping import SkippedError

_LATER_NS = 10**13


@dataclass
class CountingCutter:
    """Makes a piece of each line; `@5 text` has the time 5. Remembers what it cut, and from where.

    A line "BAD" makes the file a bad one. A line that `breaks_at` names fails as a defect would.
    """

    cut_files: list[tuple[str, int]] = field(default_factory=list)
    breaks_at: str = ""
    now_ns: int = field(default_factory=lambda: time.time_ns() + _LATER_NS)

    def cut(self, path: Path, *, encoding: str | None = None, start: int = 0) -> Iterator[Piece]:
        self.cut_files.append((path.name, start))
        data = path.read_bytes()
        place = start
        for line in data[start:].splitlines(keepends=True):
            text = line.decode().strip()
            if text == "BAD":
                raise SkippedError(SkipReason.BINARY)
            if self.breaks_at and self.breaks_at in text:
                raise RuntimeError("a defect")
            time_s = float(text[1:].split()[0]) if text.startswith("@") else None
            yield Piece(
                text=text,
                place=f"byte {place}",
                start=place,
                stop=place + len(line),
                time_s=time_s,
            )
            place += len(line)

    def names(self) -> list[str]:
        """What was cut since the last call."""
        names = [name for name, _ in self.cut_files]
        self.cut_files.clear()
        return names

    def store(
        self, root: Path | None, database: Path | None = None, transaction_chars: int = 1 << 20
    ) -> PassageStore:
        reading = Reading(
            cut=self.cut,
            is_resumable=lambda path: path.suffix == ".log",
            now_ns=lambda: self.now_ns,
            transaction_chars=transaction_chars,
        )
        return PassageStore(root, database, reading=reading)


def write(path: Path, text: str, mtime_s: int | None = None) -> None:
    """Write a file; if wanted, as if at that time."""
    path.write_text(text, encoding="utf-8")
    if mtime_s is not None:
        os.utime(path, (mtime_s, mtime_s))


def texts(store: PassageStore) -> list[str]:
    return [passage.text for passage in store.first(1000)]
