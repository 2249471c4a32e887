"""`fedattn certs`: who may take part in a network."""

import asyncio
import datetime as dt
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fedattn.cli.options import AsJson
from fedattn.cli.terminal import output, plain_table, progress, write_json
from fedattn.core.address import HostPort
from fedattn.core.node_id import AGGREGATOR, GATEWAY
from fedattn.runtime.extras import require_extras

_GRACE_S = 5
_STDIN = ("-",)

Folder = Annotated[Path, typer.Option(help="Folder of the authority.", metavar="DIR")]
Name = Annotated[str, typer.Argument(metavar="NODE", help="Node id, aggregator or gateway.")]


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
    as_json: AsJson = False,
) -> None:
    """Make an authority and a certificate a service, keys and all, at one place: for demos."""
    from fedattn.cli.certificates import init_certificates

    report = progress().print if as_json else print
    init_certificates(out, nodes or [], days, renew=renew, owner=owner, report=report)
    if as_json:
        names = dict.fromkeys((AGGREGATOR, GATEWAY, *(nodes or [])))
        write_json({name: str(out / name) for name in names})


def serve(
    listen: Annotated[str, typer.Option(help="HOST:PORT, where nodes can reach it.")],
    folder: Folder = Path("certs"),
    days: Annotated[
        float, typer.Option(min=0.001, max=825, help="How long nodes' certificates are valid.")
    ] = 7.0,
) -> None:
    """Run the authority, never where the aggregator runs: whoever has its key can make nodes."""
    require_extras("gateway")
    from fedattn.authority.office import Office
    from fedattn.authority.service import create_app
    from fedattn.runtime.doors import Doors, tls_context
    from fedattn.runtime.lifecycle import run_service
    from fedattn.runtime.listening import open_listeners
    from fedattn.runtime.logging import configure_logging
    from fedattn.runtime.serving import serve_app

    address = HostPort.parse_listening(listen)
    office = Office.open_or_make(folder, dt.timedelta(days=days))

    async def run(stopping: asyncio.Event) -> None:
        listeners = open_listeners(address)
        doors = Doors(tls=tls_context(*office.service_files))
        await serve_app(create_app(office), listeners, stopping, _GRACE_S, doors)

    configure_logging("info", "console", "authority")
    raise typer.Exit(run_service(run))


def token(
    node: Name,
    authority: Annotated[str, typer.Option(help="HOST:PORT where the node finds the authority.")],
    folder: Folder = Path("certs"),
    lifetime_s: Annotated[float, typer.Option(help="How long it may be used, seconds.")] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Print a token with which one node may join, once."""
    from fedattn.authority.office import Office

    address = HostPort.parse(authority)
    made = str(Office.open(folder).make_token(node, address, lifetime_s))
    if as_json:
        write_json({"node_id": node, "authority": str(address), "token": made})
    else:
        print(made)


def join(
    join_token: Annotated[
        str, typer.Argument(metavar="TOKEN", help="As `fedattn certs token` prints it; - reads it.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for this node's key and certificate.")],
    as_json: AsJson = False,
) -> None:
    """Make this node's key here, and get a certificate for it; for --certificates of the node."""
    from fedattn.wire import enrolment
    from fedattn.wire.join_token import JoinToken

    read = JoinToken.parse(sys.stdin.readline() if join_token in _STDIN else join_token)
    enrolment.join(read, out)
    if as_json:
        write_json({"node_id": read.node_id, "folder": str(out)})
        return
    print(f"joined as {read.node_id}; its key is in {out} and nowhere else")


def revoke(name: Name, folder: Folder = Path("certs"), as_json: AsJson = False) -> None:
    """Take back all certificates and tokens of a node; running services hear of it in seconds."""
    from fedattn.authority.office import Office

    office = Office.open(folder)
    count = office.revoke(name)
    if office.not_told:
        folders = ", ".join(map(str, office.not_told))
        print(f"error: copy {office.revoked_file} into {folders}: not written", file=sys.stderr)
    if as_json:
        not_told = [str(folder) for folder in office.not_told]
        write_json({"name": name, "revoked": count, "not_told": not_told})
    if not count:
        print(f"none known of {name} that counts; its tokens, if any, are gone", file=sys.stderr)
        raise typer.Exit(1)
    (progress() if as_json else output()).print(
        f"revoked {count} certificates of {name}; services that `fedattn certs serve` does not "
        f"tell need {office.revoked_file} in their folders",
        soft_wrap=True,
    )
    if office.not_told:
        raise typer.Exit(1)


def list_certificates(folder: Folder = Path("certs"), as_json: AsJson = False) -> None:
    """Show the certificates that were issued and have not long expired."""
    from fedattn.authority.office import Office

    issued = Office.open(folder).issued()
    if as_json:
        write_json(
            [{**asdict(one), "serial": f"{one.serial:x}", "state": one.state} for one in issued]
        )
        return
    table = plain_table("name", "state", "issued", "until", "serial")
    for one in issued:
        row = (one.name, one.state, _time(one.issued_at), _time(one.expires_at))
        table.add_row(*row, f"{one.serial:x}"[:16])
    output().print(table)


def _time(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M}"
