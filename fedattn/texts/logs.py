"""Logs: entries with the lines that continue them."""

from collections.abc import Iterator

from fedattn.texts.lines import Line
from fedattn.texts.opening import Source
from fedattn.texts.packing import Block
from fedattn.texts.plain import MAX_BLOCK_CHARS, as_block
from fedattn.texts.stamps import Stamp, find_stamp

_MIN_STAMPED = 0.1
"""Share of lines with a time stamp above which all others of a log continue an entry."""
_MOSTLY = 0.5
_MIN_LINES = 3


def is_log(head: list[str]) -> bool:
    """Whether most of the first lines of a text begin with a time stamp."""
    num_stamped, num_lines = _count(head)
    return num_stamped >= _MIN_LINES and num_stamped > _MOSTLY * num_lines


def log_blocks(source: Source, start: int) -> Iterator[Block]:
    """Entries from an offset on.

    Without time stamps a line that is not indented begins an entry.
    """
    num_stamped, num_lines = _count(source.head)
    has_stamps = num_stamped > _MIN_STAMPED * num_lines
    entry: list[Line] = []
    stamp: Stamp | None = None
    num_chars = 0
    for line in source.lines(start):
        found = find_stamp(line.text, source.modified_s)
        is_new = found or (not has_stamps and not line.text[:1].isspace() and line.text)
        if entry and (is_new or num_chars + len(line.text) > MAX_BLOCK_CHARS):
            yield _block(entry, stamp)
            entry, num_chars = [], 0
        if entry or not line.is_blank:
            stamp = stamp if entry else found
            entry.append(line)
            num_chars += len(line.text) + 1
    if entry:
        yield _block(entry, stamp)


def _block(entry: list[Line], stamp: Stamp | None) -> Block:
    if stamp is None:
        return as_block(entry, is_line=True)
    return as_block(entry, is_line=True, lead=stamp.text, time_s=stamp.time_s)


def _count(head: list[str]) -> tuple[int, int]:
    """Lines with a time stamp, and all that are not blank."""
    lines = [line for line in head if line.strip()]
    return sum(find_stamp(line, 0) is not None for line in lines), len(lines)
