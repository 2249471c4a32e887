"""`fedattn certs init`."""

from pathlib import Path
from typing import Annotated

import typer

from fedattn.runtime.extras import require_extras


def init(
    nodes: Annotated[
        list[str] | None,
        typer.Argument(help="Node ids; aggregator and gateway are made in any case."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of all certificates.")] = Path("certs"),
    days: Annotated[int, typer.Option(help="How long they are valid.")] = 825,
    renew: Annotated[bool, typer.Option("--renew", help="Make those anew that are there.")] = False,
    owner: Annotated[
        int | None, typer.Option(min=0, help="User id that gets each service's folder.")
    ] = None,
) -> None:
    """Make a private authority and a certificate a service; later calls add what is missing."""
    require_extras("certs")
    from fedattn.cli.certificates import init_certificates

    init_certificates(out, nodes or [], days, renew=renew, owner=owner)
