"""Markdown: paragraphs, lists, code and table rows under the path of their headings."""

import re
from collections.abc import Iterator
from dataclasses import replace

from fedattn.texts.lines import Line
from fedattn.texts.opening import Source
from fedattn.texts.outline import Outline
from fedattn.texts.packing import Block
from fedattn.texts.plain import MAX_BLOCK_CHARS, as_block
from fedattn.texts.rows import row_lead, row_text

_HEADING = re.compile(r" {0,3}(#{1,6})(?=\s|$)")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)\s*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_RULE = re.compile(r"[\s|:-]+")
_BAR = re.compile(r"(?<!\\)\|")
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])\s")


def markdown_blocks(source: Source, start: int) -> Iterator[Block]:
    """Blocks of a Markdown text, from its begin."""
    reader = _Reader()
    for line in source.lines(start):
        yield from reader.take(line)
    yield from reader.close()


class _Reader:
    """Takes lines and gives the blocks that they complete."""

    def __init__(self) -> None:
        self._outline = Outline()
        self._lines: list[Line] = []  # of the open paragraph, list, code
        self._num_chars = 0
        self._fence = ""  # that ends the open code
        self._header: list[str] | None = None  # of the open table
        self._title: Line | None = None  # its header, as long as it has no rows
        self._last: Line | None = None  # the last heading

    def take(self, line: Line) -> Iterator[Block]:
        """Read one more line."""
        if self._num_chars > MAX_BLOCK_CHARS:
            yield from self._flush()
        if self._fence:
            self._add(line)
            if line.text.strip().startswith(self._fence) and not line.text.strip(" `~"):
                self._fence = ""
                yield from self._flush()
        elif self._header is not None and "|" in line.text:
            self._title = None
            yield self._row(line, self._header, _cells(line.text))
        else:
            yield from self._leave_table()
            yield from self._take_text(line)

    def close(self) -> Iterator[Block]:
        """What is still open at the end."""
        yield from self._leave_table()
        yield from self._flush()
        yield from self._bare(self._outline.close())

    def _take_text(self, line: Line) -> Iterator[Block]:
        if heading := _HEADING.match(line.text):
            yield from self._flush()
            yield from self._enter(len(heading[1]), _name(line.text[heading.end() :]), line)
        elif self._is_title() and (underline := _UNDERLINE.match(line.text)):
            title = self._lines.pop()
            self._num_chars = 0
            yield from self._enter(1 if underline[1][0] == "=" else 2, title.text, line)
        elif self._lines and {"|", "-"} <= set(line.text) and _RULE.fullmatch(line.text):
            self._title = self._lines.pop()
            yield from self._flush()
            self._outline.group += 1
            self._header = _cells(self._title.text)
        elif line.is_blank:
            yield from self._flush()
        else:
            yield from self._take_content(line)

    def _take_content(self, line: Line) -> Iterator[Block]:
        fence = _FENCE.match(line.text)
        begins_list = _ITEM.match(line.text) and self._lines and not self._is_list()
        if fence or begins_list:
            yield from self._flush()
        self._fence = fence[1] if fence else ""
        self._add(line)

    def _add(self, line: Line) -> None:
        self._lines.append(line)
        self._num_chars += len(line.text) + 1

    def _is_list(self) -> bool:
        return bool(_ITEM.match(self._lines[0].text))

    def _is_title(self) -> bool:
        return len(self._lines) == 1 and not self._is_list()

    def _enter(self, level: int, name: str, line: Line) -> Iterator[Block]:
        yield from self._bare(self._outline.enter(level, name) if name else "")
        self._last = line

    def _bare(self, path: str) -> Iterator[Block]:
        """A heading that nothing stands under."""
        if path and self._last:
            yield replace(as_block([self._last]), text=path, is_begin=True)

    def _flush(self) -> Iterator[Block]:
        if self._lines:
            is_verbatim = bool(_FENCE.match(self._lines[0].text)) or self._is_list()
            self._outline.note_content()
            yield replace(
                as_block(self._lines),
                heading=self._outline.path,
                group=self._outline.group,
                is_line=is_verbatim,
            )
        self._lines, self._num_chars = [], 0

    def _leave_table(self) -> Iterator[Block]:
        if self._title and self._header:
            yield self._row(self._title, None, self._header)
        if self._header is not None:
            self._header, self._title = None, None
            self._outline.group += 1

    def _row(self, line: Line, header: list[str] | None, cells: list[str]) -> Block:
        self._outline.note_content()
        return replace(
            as_block([line], is_line=True, lead=row_lead(header, cells)),
            text=row_text(header, cells),
            heading=self._outline.path,
            group=self._outline.group,
        )


def _name(text: str) -> str:
    """The text of a heading without the number signs that may close it."""
    name = text.strip()
    without = name.rstrip("#")
    return without.rstrip() if not without or without[-1].isspace() else name


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    cells = [cell.replace("\\|", "|").strip() for cell in _BAR.split(inner)]
    return cells[:-1] if len(cells) > 1 and not cells[-1] else cells
