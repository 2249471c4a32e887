"""`fedattn ask`."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fedattn.cli.chrome_trace import chrome_trace
from fedattn.core.errors import SessionAbortedError
from fedattn.core.report import Outcome, RowSource
from fedattn.core.spans import Role
from fedattn.rest.answers import (
    LayerEvent,
    ParticipantReport,
    QueryAnswer,
    QueryEvent,
    SessionEvent,
    TokenEvent,
)
from fedattn.rest.client import GatewayClient
from fedattn.rest.query import QueryBody

_CACHED = {RowSource.CONTRIBUTOR_CACHE, RowSource.PUBLISHER_CACHE}


def ask_command(
    gateway: str, body: QueryBody, *, as_json: bool, timeline: Path | None = None
) -> None:
    """Ask and print; write the timeline, if there is a path for it.

    Raises:
        FedAttnError: the query failed.
    """
    console = Console(highlight=False)
    answer = ask_streaming(gateway, body, None if as_json else console)
    if timeline is not None:
        timeline.write_text(json.dumps(chrome_trace(answer)) + "\n")
    if as_json:
        print(answer.model_dump_json(indent=2))
        return
    console.print(report_table(answer))
    console.print(totals_line(answer))


def ask_streaming(gateway: str, body: QueryBody, console: Console | None) -> QueryAnswer:
    """Ask, show progress and answer on the console if there is one, return the answer."""
    answer: QueryAnswer | None = None
    for event in GatewayClient(gateway).stream(body):
        if isinstance(event, QueryAnswer):
            answer = event
        elif console is not None:
            _show_event(console, event)
    if answer is None:
        raise SessionAbortedError("the gateway ended the stream without a report; ask again")
    if console is not None:
        console.print()
    return answer


def _show_event(console: Console, event: QueryEvent) -> None:
    match event:
        case SessionEvent():
            members = ", ".join(member.node_id for member in event.members)
            console.print(f"[dim]session {event.session_id[:8]}: {members}[/]")
            for node in event.excluded:
                console.print(f"[yellow]without {node.node_id}: {node.detail}[/]")
        case LayerEvent() if console.is_terminal:
            console.print(f"[dim]exchanged at block {event.layer}[/]", end="\r")
        case TokenEvent():
            console.print(event.text, end="", markup=False, soft_wrap=True)


def report_table(answer: QueryAnswer) -> Table:
    """Who did what."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("node", "role", "state"):
        table.add_column(title)
    for title in ("tokens", "KiB up", "KiB down", "compute s", "wait s"):
        table.add_column(title, justify="right")
    for member in answer.participants:
        table.add_row(
            member.node_id,
            member.role,
            _state(member),
            str(member.span_len),
            f"{member.bytes_up / 1024:.1f}",
            f"{member.bytes_down / 1024:.1f}",
            f"{member.compute_s:.2f}",
            f"{member.wait_s:.2f}",
        )
    return table


def _state(member: ParticipantReport) -> str:
    """How its part ended, and how many of its files are not in it."""
    skipped = sum(member.skipped_files.values())
    return f"{_ending(member)}, {skipped} skipped" if skipped else _ending(member)


def _ending(member: ParticipantReport) -> str:
    """How its part ended, or that its rows were there before."""
    if member.state is Outcome.COMPLETE and member.rows in _CACHED:
        return f"{member.rows.replace('_', ' ')}"
    if member.missing_from_layer is not None:
        return f"{member.state} from block {member.missing_from_layer}"
    return member.state


def totals_line(answer: QueryAnswer) -> str:
    """Time and bytes in one line."""
    totals = answer.totals
    speed = totals.tokens_per_s
    decoding = f", then {speed:.1f} tokens/s" if speed else ""
    return (
        f"first token after {totals.time_to_first_token_s:.2f} s{decoding}; "
        f"KV sent {totals.kv_bytes / 1024:.1f} KiB "
        f"of {totals.planned_kv_bytes / 1024:.1f} planned ({_how(answer)})"
    )


def _how(answer: QueryAnswer) -> str:
    """Codec and keep ratio of the first contributor, which stand for all."""
    for member in answer.participants:
        how = member.compression
        if member.role is Role.CONTRIBUTOR and how is not None:
            rows = how.keep_ratio
            kept = "all rows" if rows == 1 else f"{rows:.0%} of the rows by {how.selector}"
            return f"{how.codec}, {kept}"
    return "nobody contributed"
