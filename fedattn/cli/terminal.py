"""Consoles and tables that take every text as it is: no markup, no emoji codes, no control."""

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from fedattn.core.printable import printable

_T = TypeVar("_T")

_PIPED_WIDTH = 240
"""Columns where there is no terminal to fit: programs want lines that are not cut or wrapped."""


class PlainConsole(Console):
    """A console on which a text, also in a cell of a table, can do nothing but be read.

    Styles are given beside a text, never in it.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = _PIPED_WIDTH

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def write(self, text: str) -> None:
        """Write a piece of a longer text at once: neither wrapped nor ended, tabs as they are."""
        self.file.write(printable(text))
        self.file.flush()


def plain(text: str, style: str = "") -> Text:
    """A text for places that would read markup in it, such as a status."""
    return Text(printable(text), style=style)


def output() -> PlainConsole:
    """Where results go."""
    return PlainConsole()


def progress() -> PlainConsole:
    """Where a command tells what it is doing."""
    return PlainConsole(stderr=True)


def write_json(document: Any) -> None:
    """Print a result for programs; nothing else may go to stdout then."""
    output().write(json.dumps(document, indent=2) + "\n")


def bars(console: Console) -> Progress:
    """Bars of long work with the time that is left, where there is a terminal to show them."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def tracked(items: Iterable[_T], what: str, total: int, console: Console) -> Iterator[_T]:
    """The items, with a bar that says how many are done."""
    with bars(console) as shown:
        yield from shown.track(items, total=total, description=what)


def plain_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without lines; columns in `right` come last and hold numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in columns:
        table.add_column(title, overflow="fold")
    for title in right:
        table.add_column(title, justify="right")
    return table
