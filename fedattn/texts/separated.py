"""Tables of separated values (CSV, TSV): rows with the names of their columns."""

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from fedattn.texts.lines import Line
from fedattn.texts.opening import Source
from fedattn.texts.packing import Block
from fedattn.texts.plain import MAX_BLOCK_CHARS
from fedattn.texts.rows import as_header, row_lead, row_text
from fedattn.texts.stamps import time_of

_SEPARATORS = "\t;|,"
"""In order of preference: a comma may be that of decimals."""
_SEPARATOR_LINE = "sep="
"""How Excel names the separator, in a first line of its own."""
_NUM_TRIED = 50


@dataclass(frozen=True, slots=True)
class Row:
    """Cells of a row, which goes over several lines if a quoted cell does."""

    cells: tuple[str, ...]
    lines: tuple[Line, ...]


def table_blocks(source: Source, start: int) -> Iterator[Block]:
    """Rows from an offset on, each with the names of the first row, if that has names."""
    separator = find_separator(source.head)
    first = next(_rows(source.lines(), separator), None)
    header = as_header(first.cells) if first else None
    is_alone = True
    for row in _rows(source.lines(start), separator):
        if header and first and row.lines[0].start == first.lines[0].start:
            continue
        is_alone = False
        yield _block(row, header, source.modified_s)
    if is_alone and first and header and start == 0:
        yield _block(first, None, source.modified_s)


def find_separator(head: list[str]) -> str:
    """The one that makes the most rows equally long."""
    if head and head[0].lower().startswith(_SEPARATOR_LINE) and len(head[0].strip()) == 5:
        return head[0][4]
    lines = [line for line in head if line.strip()][:_NUM_TRIED]
    return max(reversed(_SEPARATORS), key=lambda separator: _evenness(lines, separator))


def _evenness(lines: list[str], separator: str) -> tuple[float, int]:
    """Share of rows of the most common length, if that is above one; and the preference."""
    try:
        lengths = Counter(len(cells) for cells in csv.reader(lines, delimiter=separator) if cells)
    except csv.Error:
        return 0.0, 0
    length, number = max(lengths.items(), key=lambda item: item[1], default=(0, 0))
    share = round(number / lengths.total(), 1) if length > 1 else 0.0
    return share, -_SEPARATORS.index(separator)


def _block(row: Row, header: tuple[str, ...] | None, now_s: float) -> Block:
    times = (time_of(cell.strip(), now_s) for cell in row.cells if not cell.isdecimal())
    return Block(
        text=row_text(header, row.cells),
        first=row.lines[0].number,
        last=row.lines[-1].number,
        start=row.lines[0].start,
        stop=row.lines[-1].stop,
        lead=row_lead(header, row.cells),
        is_line=True,
        time_s=next((time for time in times if time is not None), None),
    )


class _Feed:
    """Lines for a `csv.reader`; ends when one row takes too many, as after a lost quote."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self.taken: list[Line] = []
        self.is_over = False
        self._num_chars = 0

    def begin_row(self) -> None:
        """Forget the lines of the last row."""
        self.taken, self._num_chars = [], 0

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        self.is_over = self._num_chars > MAX_BLOCK_CHARS
        if self.is_over:
            raise StopIteration
        line = next(self._lines)
        self.taken.append(line)
        self._num_chars += len(line.text)
        return line.text.replace("\n", " ") + "\n"


def _rows(lines: Iterator[Line], separator: str) -> Iterator[Row]:
    feed = _Feed(lines)
    while True:
        feed.begin_row()
        try:
            cells = next(csv.reader(feed, delimiter=separator), None)
        except csv.Error:
            cells = None
        taken = tuple(feed.taken)
        if not taken:
            return
        if cells is None or feed.is_over:
            yield from (Row(tuple(line.text.split(separator)), (line,)) for line in taken)
        elif any(cell.strip() for cell in cells) and not _names_separator(taken[0]):
            yield Row(tuple(cells), taken)


def _names_separator(line: Line) -> bool:
    return line.number == 1 and line.text.lower().startswith(_SEPARATOR_LINE)
