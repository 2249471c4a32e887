"""PDF by pages."""

import logging
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from pypdf import PageObject, PdfReader
from pypdf.errors import PyPdfError

from fedattn.core.contexts import SkipReason
from fedattn.texts.lines import Line
from fedattn.texts.packing import Block
from fedattn.texts.plain import paragraphs
from fedattn.texts.skipping import SkippedError

MAX_PAGES = 5_000
_MAX_PAGE_CHARS = 1 << 20
_BROKEN = (
    *(PyPdfError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(AssertionError, NotImplementedError, RecursionError, OSError, zlib.error),
)
"""What pypdf raises for broken files: it trusts the types and references that a file declares."""


def blocks(file: BinaryIO) -> Iterator[Block]:
    """Paragraphs of all pages; a piece never goes over two pages.

    Raises:
        SkippedError: it is no PDF, needs a password, or has too many pages.
    """
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it may quote the file
    try:
        reader = PdfReader(file)
        num_pages = 0 if reader.is_encrypted and not reader.decrypt("") else len(reader.pages)
    except _BROKEN:
        raise SkippedError(SkipReason.UNREADABLE, "it is no PDF, or damaged") from None
    if num_pages == 0:
        raise SkippedError(SkipReason.UNREADABLE, "it has no pages, or needs a password")
    if num_pages > MAX_PAGES:
        raise SkippedError(SkipReason.TOO_LARGE, f"it has over {MAX_PAGES} pages; split it")
    for number in range(1, num_pages + 1):
        lines = [Line(line, number, 0, 0) for line in _page_text(reader, number).split("\n")]
        for block in paragraphs(lines):
            yield replace(block, group=number, unit="page")


def _page_text(reader: PdfReader, number: int) -> str:
    """A page that cannot be read costs itself alone."""
    try:
        page: PageObject = reader.pages[number - 1]
        return page.extract_text()[:_MAX_PAGE_CHARS]
    except _BROKEN:
        return ""
