"""Placeholder of the texts branch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedattn.core.contexts import SkipReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    text: str
    place: str
    start: int
    stop: int
    time_s: float | None


class SkippedError(Exception):
    def __init__(self, reason: SkipReason) -> None:
        super().__init__(reason.words)
        self.reason = reason


def cut_file(
    path: Path, *, encoding: str | None = None, start: int = 0, max_chars: int = 600
) -> Iterator[Piece]:
    """Lines together until they are long enough."""
    with path.open("rb") as file:
        file.seek(start)
        lines: list[bytes] = []
        size, place = 0, start
        for line in file:
            if lines and size + len(line) > max_chars:
                yield Piece(
                    text=b"".join(lines).decode(errors="replace").strip(),
                    place=f"byte {place}",
                    start=place,
                    stop=place + size,
                    time_s=None,
                )
                place += size
                lines, size = [], 0
            lines.append(line)
            size += len(line)
        if lines:
            yield Piece(
                text=b"".join(lines).decode(errors="replace").strip(),
                place=f"byte {place}",
                start=place,
                stop=place + size,
                time_s=None,
            )


def is_resumable(path: Path) -> bool:
    return path.suffix in {".log", ".txt", ".md"}
