"""`fedattn --version`, `fedattn version`, and what stands above all commands."""

from typing import Annotated

import typer

from fedattn import __version__


def print_version() -> None:
    """Print the version."""
    print(__version__)


def _print_and_exit(wanted: bool) -> None:
    if wanted:
        print_version()
        raise typer.Exit


def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_and_exit, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Federated Attention: edge nodes answer one question without handing over their texts."""
