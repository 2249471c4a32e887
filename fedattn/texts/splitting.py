"""Where a text that is too long for one piece is cut."""

import re
from collections.abc import Iterator

_SENTENCE_ENDS = re.compile(
    r"[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？｡．]+[」』）】〉》\"'”’]*|;(?=\s)|\n[^\S\n]*\n"
)
_LINE_ENDS = re.compile(r"\n")
_SPACES = re.compile(r"\s+")
_WHITE = re.compile(r"\s*")
_CLAUSES = re.compile(r"[、，；：,]")
_MIN_SHARE = 0.25
"""A part that a good place would make shorter than this share is cut at a worse place."""


def split(text: str, first: int, others: int, *, by_lines: bool = False) -> Iterator[str]:
    """Parts of a text, none blank; only white space at the cuts is lost.

    They end behind a sentence (Latin or CJK marks), else at white space, else behind a comma, as
    in scripts without spaces, else anywhere.

    Args:
        text: as long as it likes.
        first: most characters of the first part.
        others: of each other part.
        by_lines: ends of lines come before ends of sentences.
    """
    marks = (*((_LINE_ENDS,) if by_lines else ()), _SENTENCE_ENDS, _SPACES, _CLAUSES)
    begin, room = _next_word(text, 0, by_lines), first
    while begin < len(text):
        stop = _cut(text, begin, begin + room, marks)
        part = text[begin:stop].rstrip()
        if part:
            yield part
            room = others
        begin = _next_word(text, stop, by_lines)


def _next_word(text: str, begin: int, by_lines: bool) -> int:
    """Behind white space; the indent of a line of its own is kept."""
    found = _WHITE.match(text, begin)
    stop = found.end() if found else begin
    newline = text.rfind("\n", begin, stop)
    return newline + 1 if by_lines and newline >= 0 and stop < len(text) else stop


def _cut(text: str, begin: int, limit: int, marks: tuple[re.Pattern[str], ...]) -> int:
    """The last good place in `(begin, limit]`."""
    if len(text) <= limit:
        return len(text)
    least = begin + int((limit - begin) * _MIN_SHARE)
    for mark in marks:
        stop = 0
        for found in mark.finditer(text, begin, limit + 1):
            end = found.start() if mark in {_LINE_ENDS, _SPACES} else found.end()
            if end <= limit:
                stop = end
        if stop > max(least, begin):
            return stop
    return limit
