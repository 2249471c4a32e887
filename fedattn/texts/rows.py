"""Rows of tables, as CSV, Markdown, HTML and documents have them, in words."""

import re
from collections.abc import Sequence

from fedattn.texts.packing import shortened

_NUMBER = re.compile(r"[-+(]?[€$£]?\s?\d[\d.,'’\s]*(?:[eE][-+]?\d+)?\s?[%€$£)]?")
_DATE = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}(?:[T\s].*)?|\d{1,2}:\d\d(?::\d\d.*)?")
_YEAR = re.compile(r"(?:19|20)\d\d")
_MAX_NAME = 80


def as_header(cells: Sequence[str]) -> tuple[str, ...] | None:
    """Names of columns, if a first row holds such: none twice, none a number or a date.

    A year may be the name of a column.
    """
    names = tuple(shortened(cell, _MAX_NAME) for cell in cells)
    given = [name for name in names if name]
    if not given or len(set(given)) < len(given):
        return None
    if all(_YEAR.fullmatch(name) for name in given) or any(map(_is_value, given)):
        return None
    return names


def row_text(header: Sequence[str] | None, cells: Sequence[str]) -> str:
    """`name: value; name: value`, or the values alone; empty cells are left out."""
    names = header or ()
    return "; ".join(
        f"{names[index]}: {value}" if index < len(names) and names[index] else value
        for index, cell in enumerate(cells)
        if (value := " ".join(cell.split()))
    )


def cell_text(header: Sequence[str] | None, cells: Sequence[str]) -> str:
    """As `row_text`; two cells without a header are a name and its value."""
    if header is None and len(cells) == 2 and all(cell.strip() for cell in cells):
        return ": ".join(" ".join(cell.split()) for cell in cells)
    return row_text(header, cells)


def row_lead(header: Sequence[str] | None, cells: Sequence[str]) -> str:
    """What says which row it is, for the further parts of a long one."""
    return shortened(row_text(header, cells).partition("; ")[0], _MAX_NAME)


def _is_value(cell: str) -> bool:
    if _YEAR.fullmatch(cell):
        return False
    return bool(_NUMBER.fullmatch(cell) or _DATE.fullmatch(cell))
