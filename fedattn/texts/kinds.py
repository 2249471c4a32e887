"""Which kind of text a file is, by its name."""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import PurePath
from types import MappingProxyType


class Kind(StrEnum):
    """What decides how a file is cut into pieces."""

    PLAIN = "plain"
    MARKDOWN = "markdown"
    TABLE = "table"
    JSON = "json"
    JSON_LINES = "json_lines"
    LOG = "log"
    PAGE = "page"
    YAML = "yaml"
    PDF = "pdf"
    WORD = "word"


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        ".txt": Kind.PLAIN,
        ".md": Kind.MARKDOWN,
        ".log": Kind.LOG,
        ".csv": Kind.TABLE,
        ".tsv": Kind.TABLE,
        ".json": Kind.JSON,
        ".jsonl": Kind.JSON_LINES,
        ".yaml": Kind.YAML,
        ".yml": Kind.YAML,
        ".html": Kind.PAGE,
        ".htm": Kind.PAGE,
        ".pdf": Kind.PDF,
        ".docx": Kind.WORD,
    }
)
"""By suffix in lower case; any case is taken."""

DOCUMENTS = frozenset({Kind.PDF, Kind.WORD})
"""Kinds that a library of the extra `documents` reads, and that have no encoding."""

_RESUMABLE = {Kind.PLAIN, Kind.TABLE, Kind.JSON_LINES, Kind.LOG}
_PACKED = ".gz"
_ROTATED = re.compile(r"\.log(?:[.\-_]?\d[\w.\-]*)?(?:\.gz)?", re.IGNORECASE)
"""End of a log's name: `.log`, `.log.1`, `.log-20261128`; each also with `.gz`."""


def kind_of(name: str) -> Kind | None:
    """The kind of a file; None if its name is of no known one."""
    found = name.lower().rfind(".log")
    if found >= 0 and _ROTATED.fullmatch(name, found):
        return Kind.LOG
    return KINDS.get(PurePath(name).suffix.lower())


def is_packed(name: str) -> bool:
    """Whether a file holds a log packed by gzip."""
    return name.lower().endswith(_PACKED)


def is_resumable(path: PurePath) -> bool:
    """Whether a file that has grown can be read on from the start of one of its pieces.

    A file of no known kind is read as plain text.
    """
    return not is_packed(path.name) and (kind_of(path.name) or Kind.PLAIN) in _RESUMABLE
