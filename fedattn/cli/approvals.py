"""`fedattn approvals`: what a node's owner has to decide."""

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedattn.cli.options import AsJson
from fedattn.cli.terminal import output, plain_table, write_json
from fedattn.core.address import HostPort
from fedattn.core.plans import format_layers
from fedattn.runtime.approvals import DEFAULT_LIFETIME_S, Approval, ApprovalStore
from fedattn.runtime.extras import require_extras
from fedattn.runtime.state import find_state_dir

_GRACE_S = 1

State = Annotated[
    Path | None,
    typer.Option(
        help="State folder of the node; default: the only one of this user.", metavar="DIR"
    ),
]
ApprovalId = Annotated[str, typer.Argument(metavar="ID", help="As the list names it.")]
LifetimeS = Annotated[float, typer.Option(help="For how long it holds, seconds.")]


def list_approvals(context: typer.Context, state: State = None, as_json: AsJson = False) -> None:
    """List what waits for the node's owner and what was decided; approve, deny."""
    context.obj = state
    if context.invoked_subcommand is not None:
        return
    entries = _store(context, None).entries()
    console = output()
    if as_json:
        write_json([entry.model_dump(mode="json") for entry in entries])
    elif entries:
        console.print(_table(entries))
    else:
        console.print("nothing waits, and nothing that was decided still holds")


def approve(
    context: typer.Context,
    approval_id: ApprovalId,
    uses: Annotated[int, typer.Option(help="Sessions that may use it.")] = 1,
    lifetime_s: LifetimeS = DEFAULT_LIFETIME_S,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Allow the same publisher, subject and purpose at most these blocks, rows and bytes."""
    entry = _store(context, state).approve(approval_id, uses=uses, lifetime_s=lifetime_s)
    if as_json:
        write_json(entry.model_dump(mode="json"))
        return
    output().print(
        f"approved for {entry.publisher}: {uses} times until {_time(entry.expires_at)}, at most "
        f"{_rows(entry)} at {len(entry.blocks)} blocks, "
        f"{entry.bytes} bytes",
        soft_wrap=True,
    )


def deny(
    context: typer.Context,
    approval_id: ApprovalId,
    lifetime_s: LifetimeS = DEFAULT_LIFETIME_S,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Refuse this publisher, subject and purpose for a while; also ends an approval."""
    entry = _store(context, state).deny(approval_id, lifetime_s=lifetime_s)
    if as_json:
        write_json(entry.model_dump(mode="json"))
        return
    output().print(f"denied for {entry.publisher} until {_time(entry.expires_at)}")


def serve(
    context: typer.Context,
    listen: Annotated[
        str, typer.Option(help="HOST:PORT; without a token on the loopback only.")
    ] = "127.0.0.1:8090",
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token that callers send as Authorization: Bearer TOKEN."),
    ] = None,
    state: State = None,
) -> None:
    """Offer a page that shows the list and the audit log, and decides; and its API."""
    require_extras("gateway")
    from fedattn.cli.approvals_api import create_app, read_token
    from fedattn.runtime.lifecycle import run_service
    from fedattn.runtime.listening import open_listeners
    from fedattn.runtime.logging import configure_logging
    from fedattn.runtime.serving import serve_app

    store = _store(context, state)
    address = HostPort.parse_listening(listen)
    app = create_app(store, address, read_token(token_file))

    async def run(stopping: asyncio.Event) -> None:
        await serve_app(app, open_listeners(address), stopping, _GRACE_S)

    configure_logging("info", "console", "approvals")
    raise typer.Exit(run_service(run))


def _store(context: typer.Context, state: Path | None) -> ApprovalStore:
    return ApprovalStore(find_state_dir(state or context.obj))


def _table(entries: tuple[Approval, ...]) -> Table:
    table = plain_table(
        *("id", "decision", "publisher", "subject", "purpose", "blocks", "asked", "until"),
        right=("rows", "bytes", "uses"),
    )
    for entry in entries:
        table.add_row(
            entry.id,
            entry.decision.value,
            entry.publisher,
            entry.subject,
            entry.purpose,
            format_layers(tuple(sorted(set(entry.blocks)))),
            _time(entry.asked_at),
            _time(entry.expires_at),
            _rows(entry),
            str(entry.bytes),
            str(entry.uses_left or ""),
        )
    return table


def _rows(entry: Approval) -> str:
    if entry.is_asked:
        return "answers, no rows"
    return f"{entry.rows} rows ({entry.keep_ratio:.0%})"


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M}"
