"""Reading an audit log: its files in order, and where its chain breaks."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NO_HASH = "0" * 64
"""What the first line of a chain has for the hash of the line before."""
MAX_LINE_BYTES = 64 << 10
_SUFFIX = re.compile(r"\.(\d{6})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What a file, or several in a row, hold.

    Attributes:
        entries: whole lines up to the first that breaks the chain.
        head: hash of the last of them.
        broken_line: one-based line of `path` where the chain breaks; 0 if it does not.
        why: what is wrong there.
        path: the file with the broken line, or the last one.
        follows: hash that the first line names, of a line before it; `NO_HASH` at a beginning.
    """

    entries: tuple[dict[str, Any], ...]
    head: str
    broken_line: int
    why: str
    path: Path
    follows: str

    @property
    def num_lines(self) -> int:
        """Good ones."""
        return len(self.entries)

    @property
    def hashes(self) -> tuple[str, ...]:
        """Of each good line: what the next one says, and the head."""
        said = [str(entry["before"]) for entry in self.entries[1:]]
        return (*said, self.head) if self.entries else ()

    @property
    def last_number(self) -> int:
        """Of the last good line; 0 if there is none."""
        return int(self.entries[-1]["number"]) if self.entries else 0


def log_files(path: Path) -> list[Path]:
    """The full files of a log, oldest first, and then the one that is written now."""
    names = [path.name + match[0] for match in _numbered(path)]
    full = [path.with_name(name) for name in sorted(names)]
    return [*full, *([path] if path.exists() else [])]


def _numbered(path: Path) -> Iterator[re.Match[str]]:
    for other in path.parent.iterdir():
        match = _SUFFIX.fullmatch(other.name.removeprefix(path.name))
        if match and other.name.startswith(path.name):
            yield match


def read_log(path: Path) -> Chain:
    """All files of a log as one chain.

    Raises:
        OSError: one of them cannot be read.
    """
    entries: tuple[dict[str, Any], ...] = ()
    follows, head, chain = None, None, None
    for file in log_files(path) or [path]:
        chain = read_chain(file, head)
        entries += chain.entries
        follows = chain.follows if follows is None else follows
        head = chain.head
        if chain.broken_line:
            break
    assert chain is not None
    return Chain(
        entries=entries,
        head=chain.head,
        broken_line=chain.broken_line,
        why=chain.why,
        path=chain.path,
        follows=follows or NO_HASH,
    )


def read_chain(path: Path, before: str | None = None) -> Chain:
    """One file, up to where its chain breaks.

    Args:
        path: of the file.
        before: hash of the last line of the file before it, if that is known.

    Raises:
        OSError: it cannot be read.
    """
    entries: list[dict[str, Any]] = []
    follows, head, why = before, before, ""
    with path.open("rb") as file:
        while not why and (line := file.readline(MAX_LINE_BYTES + 2)):
            entry = _parse(line)
            why = _fault(entry, line, head, entries)
            if not why and entry is not None:
                follows = entry["before"] if follows is None else follows
                entries.append(entry)
                head = hash_line(line[:-1])
    return Chain(
        entries=tuple(entries),
        head=head or NO_HASH,
        broken_line=len(entries) + 1 if why else 0,
        why=why,
        path=path,
        follows=follows or NO_HASH,
    )


def _fault(
    entry: dict[str, Any] | None, line: bytes, head: str | None, entries: list[dict[str, Any]]
) -> str:
    """What is wrong with the next line; empty if it goes on with the chain."""
    if not line.endswith(b"\n"):
        return "it has no end, as after a power cut"
    if entry is None:
        return "it is no entry of an audit log"
    if head is None and entry["number"] == 1 and entry["before"] != NO_HASH:
        return "the first entry names an entry before it"
    if head is not None and entry["before"] != head:
        return "the line before it is not the one that it was written after"
    if entries and entry["number"] != entries[-1]["number"] + 1:
        return f"it has the number {entry['number']} after {entries[-1]['number']}"
    return ""


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("before"), str):
        return None
    return entry if type(entry.get("number")) is int else None


def hash_line(line: bytes) -> str:
    """The hash by which the next line names this one; without its end."""
    return hashlib.sha256(line).hexdigest()
