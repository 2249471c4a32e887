"""`fedattn audit`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fedattn.cli.options import AsJson
from fedattn.cli.terminal import PlainConsole, output, plain_table, progress, write_json
from fedattn.core.errors import ConfigurationError, InvalidRequestError
from fedattn.core.plans import format_layers
from fedattn.runtime.audit_chain import Chain, read_log

_COLUMNS = (
    "number", "time", "event", "session", "publisher", "subject", "purpose", "share", "blocks",
    "rows", "keep_ratio", "answers", "bytes", "receivers", "outcome", "detail",
)  # fmt: skip

_SHORTENED = {"session": 8, "time": len("2026-11-30T12:00:00")}
"""Columns whose beginning is enough for people; --json has the rest."""


def audit(
    file: Annotated[Path, typer.Argument(help="The log, such as DIR/audit.jsonl.")],
    as_json: AsJson = False,
    expect_head: Annotated[
        str | None,
        typer.Option(
            metavar="HASH", help="A head noted earlier; fails if that entry is not there any more."
        ),
    ] = None,
) -> None:
    """Show what a node gave to whom, and check that nothing was changed.

    Each entry holds the hash of the one before: a line that is changed, added or removed breaks
    the chain, and the first such line is named. Only the end can be cut off unseen. Note the head,
    the hash of the last entry, elsewhere and give it as --expect-head. Files that are full are
    read too, if they lie beside it.
    """
    chain = _read(file)
    console = progress() if as_json else output()
    if as_json:
        write_json(_document(chain))
    else:
        console.print(_table(chain))
        _tell_ends(chain, console)
    if chain.broken_line:
        raise ConfigurationError(
            f"{chain.path}: line {chain.broken_line} breaks the chain: {chain.why}; nothing from "
            f"there on can be trusted"
        )
    if expect_head is not None:
        _check_head(chain, expect_head, console)


def _read(file: Path) -> Chain:
    try:
        return read_log(file)
    except OSError as error:
        raise InvalidRequestError(
            f"audit log {file}: cannot be read ({(error.strerror or str(error)).lower()}); name "
            f"the file audit.jsonl of a node's state folder"
        ) from error


def _document(chain: Chain) -> dict[str, Any]:
    return {
        "entries": chain.entries,
        "head": chain.head,
        "broken_line": chain.broken_line or None,
        "broken_file": str(chain.path) if chain.broken_line else None,
        "why": chain.why,
    }


def _table(chain: Chain) -> Table:
    used = [name for name in _COLUMNS if any(entry.get(name) for entry in chain.entries)]
    table = plain_table(*used)
    for entry in chain.entries:
        table.add_row(*(_cell(name, entry.get(name, "")) for name in used))
    return table


def _cell(name: str, value: object) -> str:
    match value:
        case [*parts] if name == "blocks":
            blocks = {block for block in parts if isinstance(block, int)}
            text = format_layers(tuple(sorted(blocks))) if blocks else ""
        case [*parts]:
            text = ",".join(map(str, parts))
        case _:
            text = str(value)
    return text[: _SHORTENED.get(name)]


def _tell_ends(chain: Chain, console: PlainConsole) -> None:
    if chain.entries and chain.entries[0]["number"] > 1:
        first = chain.entries[0]["number"]
        console.print(f"begins with entry {first}; the files before it are not here")
    console.print(f"{chain.num_lines} entries, head {chain.head}", soft_wrap=True)


def _check_head(chain: Chain, expected: str, console: PlainConsole) -> None:
    for entry, entry_hash in zip(chain.entries, chain.hashes, strict=True):
        if entry_hash == expected.lower():
            console.print(f"the expected head is entry {entry['number']}")
            return
    raise ConfigurationError(
        f"no entry has the hash {expected[:64]}; entries were removed, or its file was full and "
        f"is not kept any more"
    )
