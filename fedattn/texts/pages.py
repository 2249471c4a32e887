"""HTML: what a reader of a page sees, under the path of its headings, tables by rows."""

from collections.abc import Iterator, Mapping

from lxml import etree

from fedattn.texts.markup import BLOCKS, CELLS, SPACES, UNSEEN
from fedattn.texts.opening import Source
from fedattn.texts.outline import Outline
from fedattn.texts.packing import Block
from fedattn.texts.rows import as_header, cell_text, row_lead

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_FED_CHARS = 1 << 16


def page_blocks(source: Source, start: int) -> Iterator[Block]:  # noqa: ARG001 - as other formats
    """Paragraphs and table rows of a page."""
    page = source.whole()
    reader = _Reader()
    parser = etree.HTMLParser(target=reader, huge_tree=True)
    for begin in range(0, len(page), _FED_CHARS):
        parser.feed(page[begin : begin + _FED_CHARS])
        yield from reader.drain()
    parser.close()
    yield from reader.drain()


class _Table:
    """An open table: its row, and what its first row said."""

    def __init__(self) -> None:
        self.cells: list[str] = []
        self.header: tuple[str, ...] | None = None
        self.num_rows = 0
        self.are_heads = True
        self.is_layout = False  # a table inside a cell: cells are paragraphs


class _Reader:
    """Takes a parser's events: no tree is built, so time and memory are linear in the page."""

    def __init__(self) -> None:
        self._outline = Outline()
        self._blocks: list[Block] = []
        self._number = 0
        self._parts: list[str] = []
        self._tables: list[_Table] = []
        self._is_in_cell = False
        self._num_unseen = 0  # open elements whose text nobody sees
        self._num_pre = 0

    def drain(self) -> list[Block]:
        """The blocks that are complete by now."""
        blocks, self._blocks = self._blocks, []
        return blocks

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:  # noqa: ARG002 - lxml's
        self._num_unseen += tag in UNSEEN
        self._num_pre += tag == "pre"
        if tag == "table":
            self._open_table()
        elif tag in CELLS and self._tables:
            self._end_text()
            self._is_in_cell = True
            self._tables[-1].are_heads &= tag == "th"
        elif tag in BLOCKS:
            self._break()

    def end(self, tag: str) -> None:
        self._num_unseen -= tag in UNSEEN
        self._num_pre -= tag == "pre"
        if tag in _HEADINGS and not self._is_in_cell:
            self._enter(_HEADINGS[tag])
        elif tag in CELLS and self._tables:
            self._end_cell(self._tables[-1])
        elif tag == "tr" and self._tables:
            self._end_row(self._tables[-1])
        elif tag == "table" and self._tables:
            self._end_text()
            self._end_table(self._tables.pop())
            self._is_in_cell = bool(self._tables)
            self._outline.group += 1
        elif tag in BLOCKS:
            self._break()

    def data(self, text: str) -> None:
        if not self._num_unseen:
            self._parts.append(text if self._num_pre else SPACES.sub(" ", text))

    def close(self) -> None:
        self._end_text()
        self._add(self._outline.close(), is_bare=True)

    def _open_table(self) -> None:
        self._end_text()
        if self._tables:
            self._tables[-1].is_layout = True
        self._tables.append(_Table())
        self._is_in_cell = False
        self._outline.group += 1

    def _break(self) -> None:
        if self._is_in_cell and not self._tables[-1].is_layout:
            self._parts.append(" ")
        else:
            self._end_text()

    def _taken(self) -> str:
        text = "".join(self._parts).strip()
        self._parts = []
        return text

    def _end_text(self) -> None:
        self._add(self._taken())

    def _end_cell(self, table: _Table) -> None:
        if table.is_layout:
            self._end_text()
        else:
            table.cells.append(self._taken())
        self._is_in_cell = False

    def _end_row(self, table: _Table) -> None:
        self._end_text()
        cells, table.cells = table.cells, []
        are_heads, table.are_heads = table.are_heads, True
        if not any(cells):
            return
        table.num_rows += 1
        if table.num_rows == 1 and not table.is_layout:
            guess = as_header(cells) if len(cells) > 2 else None
            table.header = tuple(cells) if are_heads else guess
            if table.header:
                return
        self._add(cell_text(table.header, cells), lead=row_lead(table.header, cells))

    def _end_table(self, table: _Table) -> None:
        if table.header and table.num_rows == 1:
            self._add(cell_text(None, table.header), lead="")

    def _enter(self, level: int) -> None:
        name = self._taken()
        if name:
            self._add(self._outline.enter(level, name), is_bare=True)

    def _add(self, text: str, *, lead: str | None = None, is_bare: bool = False) -> None:
        if not text:
            return
        self._number += 1
        if not is_bare:
            self._outline.note_content()
        self._blocks.append(
            Block(
                text=text,
                first=self._number,
                last=self._number,
                unit="paragraph",
                heading="" if is_bare else self._outline.path,
                group=self._outline.group,
                is_begin=is_bare,
                lead=lead or "",
                is_line=lead is not None,
            )
        )
