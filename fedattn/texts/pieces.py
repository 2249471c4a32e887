"""From a file to the pieces that take part in sessions.

kinds      the name of a file            -> how it is cut
opening    its head                      -> its encoding; `lines`: its lines with their offsets
(formats)  lines, or a whole small file  -> blocks: paragraphs, entries, rows, records
packing    blocks                        -> pieces of a small size (`splitting`: of long blocks)
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from fedattn.core.contexts import SkipReason
from fedattn.texts.documents import cut_document
from fedattn.texts.kinds import DOCUMENTS, Kind, is_resumable, kind_of
from fedattn.texts.logs import is_log, log_blocks
from fedattn.texts.markdown import markdown_blocks
from fedattn.texts.markup import declared_encoding
from fedattn.texts.opening import Source, open_regular, open_text
from fedattn.texts.packing import Block, Piece, pack
from fedattn.texts.pages import page_blocks
from fedattn.texts.plain import plain_blocks
from fedattn.texts.records import are_json_lines, json_blocks, json_line_blocks
from fedattn.texts.separated import table_blocks
from fedattn.texts.skipping import SkippedError
from fedattn.texts.yaml_text import yaml_blocks

__all__ = ["Piece", "SkippedError", "cut_file", "is_resumable"]

MAX_CHARS = 200
"""Of the content of a piece: some 60 tokens of most languages."""

_Cut = Callable[[Source, int], Iterator[Block]]
_FORMATS: Mapping[Kind, _Cut] = MappingProxyType(
    {
        Kind.PLAIN: plain_blocks,
        Kind.MARKDOWN: markdown_blocks,
        Kind.TABLE: table_blocks,
        Kind.JSON: json_blocks,
        Kind.JSON_LINES: json_line_blocks,
        Kind.LOG: log_blocks,
        Kind.PAGE: page_blocks,
        Kind.YAML: yaml_blocks,
    }
)
_TOLERANT = {Kind.LOG, Kind.JSON_LINES}
"""Kinds in which a bad byte far in costs itself alone."""
_LOOKED_AT = 1024


def cut_file(
    path: Path, *, encoding: str | None = None, start: int = 0, max_chars: int = MAX_CHARS
) -> Iterator[Piece]:
    """The pieces of a file, in order, read as they are taken.

    Read on from the start of an earlier piece, a file that has only grown gives the pieces that
    it would give from there as a whole; they take the place of all earlier ones with that
    `start` or a later one.

    Args:
        path: a regular file; its name decides how it is cut.
        encoding: of what is neither UTF-8 nor UTF-16, as a codec of Python.
        start: of an earlier piece, in bytes, if `is_resumable(path)`; else 0.
        max_chars: of the content of a piece, without its heading; at least 100.

    Raises:
        SkippedError: the file cannot be read, or has no text. What it says of a packed log that
            becomes too large comes behind the pieces of its begin.
    """
    if max_chars < 100:
        raise ValueError(f"expected max_chars of at least 100, got {max_chars}")
    has_any = start > 0
    for piece in _pieces(path, encoding, start, max_chars):
        has_any = True
        yield piece if is_resumable(path) else replace(piece, start=0, stop=0)
    if not has_any:
        raise SkippedError(SkipReason.BLANK)


def _pieces(path: Path, encoding: str | None, start: int, max_chars: int) -> Iterator[Piece]:
    kind = kind_of(path.name) or Kind.PLAIN
    if kind in DOCUMENTS:
        yield from cut_document(path, kind, max_chars)
        return
    fallback = (_declared(path) if kind is Kind.PAGE else None) or encoding
    with open_text(path, fallback, is_tolerant=kind in _TOLERANT) as source:
        cut = _FORMATS[_kind_inside(kind, source.head)]
        yield from pack(cut(source, start), max_chars)


def _declared(path: Path) -> str | None:
    try:
        with open_regular(path) as file:
            return declared_encoding(file.read(_LOOKED_AT))
    except OSError:
        raise SkippedError(SkipReason.UNREADABLE) from None


def _kind_inside(kind: Kind, head: list[str]) -> Kind:
    """A text may be a log, and a log may be JSON lines."""
    if kind is Kind.PLAIN and is_log(head):
        return Kind.LOG
    return Kind.JSON_LINES if kind is Kind.LOG and are_json_lines(head) else kind
