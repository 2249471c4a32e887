"""`fedattn ask`."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedattn.cli.chrome_trace import chrome_trace
from fedattn.cli.client import stream_query
from fedattn.core.errors import SessionAbortedError


def ask_command(
    gateway: str, body: dict[str, Any], *, as_json: bool, timeline: Path | None = None
) -> None:
    """Ask and print; write the timeline, if there is a path for it.

    Raises:
        FedAttnError: the query failed.
    """
    console = Console(highlight=False)
    report = ask_streaming(gateway, body, None if as_json else console)
    if timeline is not None:
        timeline.write_text(json.dumps(chrome_trace(report)) + "\n")
    if as_json:
        print(json.dumps(report, indent=2))
        return
    console.print(report_table(report))
    console.print(totals_line(report))


def ask_streaming(gateway: str, body: dict[str, Any], console: Console | None) -> dict[str, Any]:
    """Ask, show progress and answer on the console if there is one, return the report."""
    report: dict[str, Any] | None = None
    for name, data in stream_query(gateway, body):
        if name == "report":
            report = data
        elif console is not None:
            _show_event(console, name, data)
    if report is None:
        raise SessionAbortedError("the gateway ended the stream without a report; ask again")
    if console is not None:
        console.print()
    return report


def _show_event(console: Console, name: str, data: dict[str, Any]) -> None:
    match name:
        case "session":
            members = ", ".join(member["node_id"] for member in data["members"])
            console.print(f"[dim]session {data['session_id'][:8]}: {members}[/]")
            for node in data["excluded"]:
                console.print(f"[yellow]without {node['node_id']}: {node['detail']}[/]")
        case "layer" if console.is_terminal:
            console.print(f"[dim]exchanged at block {data['layer']}[/]", end="\r")
        case "token":
            console.print(data["text"], end="", markup=False, soft_wrap=True)


def report_table(report: dict[str, Any]) -> Table:
    """Who did what."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("node", "role", "state"):
        table.add_column(title)
    for title in ("tokens", "KiB up", "KiB down", "compute s", "wait s"):
        table.add_column(title, justify="right")
    for member in report["participants"]:
        reused = member["state"] == "complete" and member["rows"] in {"kept", "held"}
        state = member["rows"] if reused else member["state"]
        if member["missing_from_layer"] is not None:
            state += f" from block {member['missing_from_layer']}"
        table.add_row(
            member["node_id"],
            member["role"],
            state,
            str(member["span_len"]),
            f"{member['bytes_up'] / 1024:.1f}",
            f"{member['bytes_down'] / 1024:.1f}",
            f"{member['compute_s']:.2f}",
            f"{member['wait_s']:.2f}",
        )
    return table


def totals_line(report: dict[str, Any]) -> str:
    """Time and bytes in one line."""
    totals = report["totals"]
    speed = totals["tokens_per_s"]
    decoding = f", then {speed:.1f} tokens/s" if speed else ""
    return (
        f"first token after {totals['time_to_first_token_s']:.2f} s{decoding}; "
        f"KV sent {totals['kv_bytes'] / 1024:.1f} KiB "
        f"of {totals['planned_kv_bytes'] / 1024:.1f} planned ({_how(report)})"
    )


def _how(report: dict[str, Any]) -> str:
    """Codec, keep ratio and plan of the first contributor, which stand for all."""
    for member in report["participants"]:
        compression = member["compression"]
        if member["role"] == "contributor" and compression is not None:
            rows = compression["keep_ratio"]
            kept = (
                "all rows" if rows == 1 else f"{rows:.0%} of the rows by {compression['selector']}"
            )
            return f"{compression['codec']}, {kept}"
    return "nobody contributed"
