"""Word documents (DOCX): paragraphs and table rows under the path of their headings."""

import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import docx
from docx.opc.exceptions import OpcError
from docx.table import Table
from docx.text.paragraph import Paragraph
from lxml.etree import XMLSyntaxError

from fedattn.core.contexts import SkipReason
from fedattn.texts.outline import Outline
from fedattn.texts.packing import Block
from fedattn.texts.rows import as_header, cell_text, row_lead
from fedattn.texts.skipping import SkippedError

MAX_INFLATED_BYTES = 128 << 20
"""Of all parts of a document, pictures included."""
MAX_PART_BYTES = 32 << 20
"""Of one part. A tree is built of each that its document says is XML, whatever its name."""
_MAX_PARTS = 5_000
_HEADING = re.compile(r"(?:heading|überschrift)\s*([1-9])|title|titel", re.IGNORECASE)
_BROKEN = (
    OpcError,
    zipfile.BadZipFile,
    XMLSyntaxError,
    KeyError,
    ValueError,
    AttributeError,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)
"""What python-docx raises for files that are no documents."""


def blocks(file: BinaryIO) -> Iterator[Block]:
    """Paragraphs and table rows.

    Raises:
        SkippedError: it is no document, or would become too large.
    """
    reader = _Reader()
    try:
        check_archive(file)
        for item in docx.Document(file).iter_inner_content():
            yield from reader.rows(item) if isinstance(item, Table) else reader.paragraph(item)
        yield from reader.close()
    except _BROKEN:
        raise SkippedError(SkipReason.UNREADABLE, "it is no DOCX, or damaged") from None


def check_archive(file: BinaryIO) -> None:
    """Refuse what would fill the memory, by the declared sizes, beyond which zipfile never reads.

    Raises:
        SkippedError: too many or too large parts.
        BadZipFile: it is no archive.
    """
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
    sizes = [part.file_size for part in parts]
    if (
        len(parts) > _MAX_PARTS
        or sum(sizes) > MAX_INFLATED_BYTES
        or max(sizes, default=0) > MAX_PART_BYTES
    ):
        raise SkippedError(SkipReason.TOO_LARGE, "unpacked it would be too large; split it")
    file.seek(0)


class _Reader:
    """Numbers blocks and keeps the headings above them."""

    def __init__(self) -> None:
        self._outline = Outline()
        self._number = 0

    def paragraph(self, paragraph: Paragraph) -> Iterator[Block]:
        """The block of a paragraph; a heading is in the path of those below it."""
        style = paragraph.style.name if paragraph.style else None
        heading = _HEADING.fullmatch(style or "")
        text = paragraph.text.strip()
        if heading and text:
            left = self._outline.enter(int(heading[1] or 0), text)
            yield from self._block(left, is_bare=True)
        else:
            yield from self._block(text)

    def rows(self, table: Table) -> Iterator[Block]:
        """The rows of a table; two columns without a header are names and values."""
        self._outline.group += 1
        header: tuple[str, ...] | None = None
        index = 0
        for index, row in enumerate(table.rows):
            cells = list(dict.fromkeys(row.cells))  # one that is merged comes several times
            texts = [cell.text for cell in cells]
            if index == 0 and len(texts) > 2 and (header := as_header(texts)):
                continue
            yield from self._block(cell_text(header, texts), lead=row_lead(header, texts))
        if header and index == 0:
            yield from self._block(cell_text(None, header), lead="")
        self._outline.group += 1

    def close(self) -> Iterator[Block]:
        """A last heading without content."""
        yield from self._block(self._outline.close(), is_bare=True)

    def _block(
        self, text: str, *, lead: str | None = None, is_bare: bool = False
    ) -> Iterator[Block]:
        self._number += 1
        if not text:
            return
        if not is_bare:
            self._outline.note_content()
        yield Block(
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
