"""`fedattn --version`, `fedattn version`, and what stands above all commands."""

import platform
from typing import Annotated

import typer

from fedattn import __version__
from fedattn.cli.options import AsJson
from fedattn.cli.terminal import write_json


def print_version(as_json: AsJson = False) -> None:
    """Print the version."""
    if as_json:
        from fedattn.wire.protocol import PROTOCOL_VERSION

        python = platform.python_version()
        write_json({"version": __version__, "protocol": PROTOCOL_VERSION, "python": python})
    else:
        print(__version__)


def _print_and_exit(wanted: bool) -> None:
    if wanted:
        print_version(as_json=False)
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
