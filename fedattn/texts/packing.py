"""From blocks, as a format tells them apart, to pieces of a small size."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from fedattn.texts.decoding import tidy
from fedattn.texts.splitting import split


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A small part of a file, which can take part in a session by itself.

    Attributes:
        text: heading path, table header or time stamp first, then the content; never empty.
        place: where it stands, for the node's own eyes: `lines 30-44`, `page 3`.
        start: offset in the file, in bytes, from which it can be read again with all that follows;
            0 where the format does not allow that. Parts of one long paragraph share it.
        stop: offset just behind it; 0 where `start` has no meaning.
        time_s: of its last log entry or record, in seconds since 1970, if that says.
    """

    text: str
    place: str
    start: int
    stop: int
    time_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A paragraph, log entry, table row, record: what is kept whole if it fits.

    Attributes:
        text: without the heading.
        first: number of its first line, page or record, from 1.
        last: number of its last one.
        start: offset in the file, in bytes, if the format allows to resume there.
        stop: offset just behind it.
        heading: first line of each of its pieces.
        group: blocks of different groups, as two tables, never share a piece.
        lead: repeated in front of the further parts of a block too long for one piece.
        is_line: joined to others by a newline, not a blank line, and cut at its own newlines first.
        unit: what `first` and `last` count, such as `line`.
        time_s: as of a piece.
        is_begin: whether it begins a piece, as a heading without content. The first part of a long
            block does: reading on from the start that its parts share gives nothing twice.
    """

    text: str
    first: int
    last: int
    unit: str = "line"
    start: int = 0
    stop: int = 0
    heading: str = ""
    group: int = 0
    lead: str = ""
    is_line: bool = False
    time_s: float | None = None
    is_begin: bool = False


_MAX_LEAD = 80
"""Characters that are repeated in front of further parts."""
_MAX_HEADING = 200
_BLANK_LINES = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")


def pack(blocks: Iterable[Block], max_chars: int) -> Iterator[Piece]:
    """Pieces of at most `max_chars` characters behind their heading, in order.

    Args:
        blocks: in order of the file.
        max_chars: more than `_MAX_LEAD`, so that a part has room behind its lead.
    """
    open_parts: list[Block] = []
    size = 0
    for part in (part for block in blocks for part in _parts(block, max_chars)):
        added = len(part.text) + (len(_gap(open_parts[-1], part)) if open_parts else 0)
        if open_parts and not (_may_share(open_parts[-1], part) and size + added <= max_chars):
            yield _piece(open_parts)
            open_parts, size, added = [], 0, len(part.text)
        size += added
        open_parts.append(part)
    if open_parts:
        yield _piece(open_parts)


def _may_share(one: Block, other: Block) -> bool:
    return not other.is_begin and (one.group, one.heading) == (other.group, other.heading)


def _gap(one: Block, other: Block) -> str:
    return "\n" if one.is_line and other.is_line else "\n\n"


def _parts(block: Block, max_chars: int) -> Iterator[Block]:
    """The block itself, or as many parts as it takes; nothing for a blank one."""
    text = _tidied(block.text)
    if len(text) <= max_chars:
        if text:
            yield block if text == block.text else replace(block, text=text)
        return
    lead = block.lead.strip()[: min(_MAX_LEAD, max_chars // 2)]
    room = max_chars - (len(lead) + 1 if lead else 0)
    parts = split(text, max_chars, room, by_lines=block.is_line)
    for index, part in enumerate(parts):
        text = f"{lead}\n{part}" if index and lead else part
        yield replace(block, text=text, is_begin=index == 0)


def _tidied(text: str) -> str:
    text = tidy(text)
    if "\n" in text:
        text = _BLANK_LINES.sub("\n\n", text).strip("\n")
    return text.rstrip()


def _piece(parts: list[Block]) -> Piece:
    first, last = parts[0], parts[-1]
    gaps = ("", *(_gap(one, other) for one, other in pairwise(parts)))
    content = "".join(gap + part.text for gap, part in zip(gaps, parts, strict=True))
    heading = shortened(first.heading, _MAX_HEADING)
    times = [part.time_s for part in parts if part.time_s is not None]
    return Piece(
        text=f"{heading}\n{content}" if heading else content,
        place=_place(first.unit, first.first, last.last),
        start=first.start,
        stop=last.stop,
        time_s=times[-1] if times else None,
    )


def _place(unit: str, first: int, last: int) -> str:
    return f"{unit} {first}" if first == last else f"{unit}s {first}-{last}"


def shortened(text: str, max_chars: int) -> str:
    """One line of at most so many characters."""
    line = " ".join(tidy(text).split())
    return line if len(line) <= max_chars else line[: max_chars - 1].rstrip() + "…"
