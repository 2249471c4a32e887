"""`fedattn nodes`: who is joined, and who left of late."""

import time
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fedattn.cli.options import ApiKey, AsJson, Authority, Gateway
from fedattn.cli.terminal import output, plain, plain_table, write_json
from fedattn.client import Client
from fedattn.client.connection import DEFAULT_GATEWAY
from fedattn.core.errors import InvalidRequestError, UnavailableError
from fedattn.core.printable import one_line
from fedattn.core.report import NodeState, Pressure
from fedattn.rest.participants import NodeHealth, ParticipantInfo

_STYLES = {Pressure.HIGH: "yellow", Pressure.CRITICAL: "red"}
_STATE_STYLES = {
    NodeState.LATE: "yellow",
    NodeState.RESTING: "red",
    NodeState.DEPARTED: "yellow",
}
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


def nodes(
    gateway: Gateway = DEFAULT_GATEWAY,
    api_key: ApiKey = None,
    ca: Authority = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again, until Ctrl-C; on a terminal.")
    ] = False,
    interval_s: Annotated[
        float, typer.Option(min=1.0, max=3600.0, help="Between two looks of --watch, seconds.")
    ] = 2.0,
    as_json: AsJson = False,
) -> None:
    """List the nodes that are joined: model, texts, sessions, heat, memory; and those that left."""
    if watch and as_json:
        raise InvalidRequestError("--watch and --json: give one of them, not both")
    console = output()
    with Client(gateway, api_key, ca=ca, retries=0) as client:
        if watch and console.is_terminal:
            _watch(client, interval_s)
            return
        found = client.participants()
    if as_json:
        write_json([node.model_dump(mode="json") for node in found])
        return
    console.print(node_table(found))
    for node in found:
        for text in _remarks(node):
            console.print(plain(f"{node.node_id}: {one_line(text)}", "yellow"), soft_wrap=True)
    console.print(f"{len(joined(found))} nodes are joined")


def joined(found: Sequence[ParticipantInfo]) -> list[ParticipantInfo]:
    """Those that are joined now."""
    return [node for node in found if node.state is not NodeState.DEPARTED]


def _remarks(node: ParticipantInfo) -> Iterator[str]:
    """What is wrong with a node."""
    match node.state:
        case NodeState.DEPARTED:
            yield f"left {_span(node.left_for_s or 0)} ago; {node.state_reason}"
            return
        case NodeState.LATE:
            yield f"late: {node.state_reason}"
        case NodeState.RESTING:
            yield f"not asked for another {_span(node.rests_for_s)}: {node.state_reason}"
        case NodeState.GOOD:
            pass
    yield from node.warnings


def _watch(client: Client, interval_s: float) -> None:
    """Show the table anew each time; a gateway that is away for a while ends nothing."""
    table = node_table(client.participants())
    with Live(table, console=output(), auto_refresh=False) as live:
        while True:
            live.update(table, refresh=True)
            time.sleep(interval_s)
            try:
                table = node_table(client.participants())
            except UnavailableError as error:
                table.caption = plain(one_line(str(error)), "yellow")


def node_table(found: Sequence[ParticipantInfo]) -> Table:
    """A row a node, by id."""
    table = plain_table(
        *("node", "model", "fingerprint", "publishes", "state", "pressure"),
        right=("files", "passages", "tokens", "sessions", "memory free", "°C", "joined for"),
    )
    for node in sorted(found, key=lambda node: node.node_id):
        health = node.health
        heat = None if health is None else health.temperature_c
        table.add_row(
            one_line(node.node_id),
            one_line(node.model_name),
            node.model_fingerprint[:8],
            "yes" if node.can_publish else "",
            plain(node.state.value, _STATE_STYLES.get(node.state, "")),
            _pressure(health),
            *map(_count, (node.context_files, node.context_passages, node.context_tokens)),
            str(node.active_sessions),
            "-" if health is None else f"{health.memory_free:.0%}",
            "-" if heat is None else f"{heat:.0f}",
            _span(node.joined_for_s),
        )
    return table


def _pressure(health: NodeHealth | None) -> Text:
    if health is None:
        return plain("-")
    return plain(health.pressure.value, _STYLES.get(health.pressure, ""))


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def _span(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
