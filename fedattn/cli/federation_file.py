"""Reading `federation.toml`: every mistake is told by file, table, key, expected and got."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fedattn.cli.federation import (
    FOLDER,
    MAX_NODES,
    AggregatorTable,
    Federation,
    GatewayTable,
    NodeTable,
)
from fedattn.core.errors import ConfigurationError
from fedattn.core.expectations import message_of

FILE_NAME = "federation.toml"
_TABLES: Mapping[str, type[BaseModel]] = {
    "": Federation,
    "node": NodeTable,
    "gateway": GatewayTable,
    "aggregator": AggregatorTable,
}
_EXPECTED: Mapping[str, str] = {
    "missing": "expected at least one table",
    "list_type": "expected one or more tables, each in double brackets",
    "too_short": "expected at least one table",
    "too_long": f"expected at most {MAX_NODES} tables",
    "model_type": "expected a table",
    "path_type": "expected a path",
}
_MOST_CHARS = 80


def read_federation(path: Path) -> Federation:
    """The network that a file describes; its paths start from the folder of the file.

    Raises:
        ConfigurationError: it cannot be read, or says what it may not; names each key.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise ConfigurationError(f"{path}: expected TOML in UTF-8, got: {error}") from None
    try:
        return Federation.model_validate(document, context={FOLDER: path.parent})
    except ValidationError as error:
        mistakes = "; ".join(_describe(item) for item in error.errors())
        raise ConfigurationError(
            f"{path}: {mistakes}; docs/federation-file.md has all keys"
        ) from None


def _describe(item: ErrorDetails) -> str:
    """One mistake: where, what was expected, what there is."""
    message = _EXPECTED.get(item["type"]) or message_of(item)
    if not item["loc"]:  # of the document as a whole, which says where
        return message
    table, where = _place(item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown; expected one of {', '.join(_TABLES[table].model_fields)}"
    got = "" if "got " in message else f", got {_shown(item)}"
    return f"{where}: {message}{got}"


def _place(loc: Sequence[str | int]) -> tuple[str, str]:
    """The table, and table and key in words; nodes are counted from 1."""
    name, rest = str(loc[0]), list(loc[1:])
    if name not in _TABLES:
        return "", f"key {name}"
    header = f"[[{name}]]" if name == "node" else f"[{name}]"
    if rest and isinstance(rest[0], int):
        number, *rest = rest
        header = f"{header} {int(number) + 1}"
    return name, f"{header}, key {rest[0]}" if rest else header


def _shown(item: ErrorDetails) -> str:
    value = item["input"]
    if item["type"] == "missing":
        return "none"
    if isinstance(value, list):
        return str(len(value))
    return "a table" if isinstance(value, dict) else repr(value)[:_MOST_CHARS]
