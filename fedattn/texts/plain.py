"""Plain text: paragraphs."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from fedattn.texts.lines import Line
from fedattn.texts.opening import Source
from fedattn.texts.packing import Block

MAX_BLOCK_CHARS = 1 << 16
"""A paragraph, or a log entry, is cut at a line's end here, so that memory stays bounded."""
_MAX_HEADING_CHARS = 80
_NO_HEADING = re.compile(r"[.!?;,…。！？；，、]\W*$")


def plain_blocks(source: Source, start: int) -> Iterator[Block]:
    """Paragraphs from an offset on."""
    return paragraphs(source.lines(start))


def paragraphs(lines: Iterable[Line]) -> Iterator[Block]:
    """What blank lines set apart; a line that looks like a heading stays with what follows."""
    heading: list[Line] = []
    for paragraph in _runs(lines):
        if heading and _is_heading(paragraph):
            yield as_block(heading)
            heading = paragraph
        elif _is_heading(paragraph):
            heading = paragraph
        else:
            yield as_block(heading + paragraph)
            heading = []
    if heading:
        yield as_block(heading)


def as_block(
    lines: list[Line], *, is_line: bool = False, lead: str = "", time_s: float | None = None
) -> Block:
    """Lines that belong together."""
    first, last = lines[0], lines[-1]
    return Block(
        text="\n".join([line.text for line in lines]),
        first=first.number,
        last=last.number,
        start=first.start,
        stop=last.stop,
        lead=lead,
        is_line=is_line,
        time_s=time_s,
    )


def _runs(lines: Iterable[Line]) -> Iterator[list[Line]]:
    run: list[Line] = []
    num_chars = 0
    for line in chain(lines, (None,)):
        is_over = line is None or line.is_blank or num_chars + len(line.text) > MAX_BLOCK_CHARS
        if is_over and run:
            yield run
            run, num_chars = [], 0
        if line is not None and not line.is_blank:
            run.append(line)
            num_chars += len(line.text)


def _is_heading(lines: list[Line]) -> bool:
    text = lines[0].text.strip()
    return len(lines) == 1 and len(text) <= _MAX_HEADING_CHARS and not _NO_HEADING.search(text)
