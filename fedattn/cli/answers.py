"""Answers on a terminal: as they come, and what they took."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from rich.status import Status
from rich.table import Table

from fedattn.cli.terminal import PlainConsole, plain, plain_table
from fedattn.client import Client
from fedattn.client.reading import no_report
from fedattn.core.printable import one_line
from fedattn.core.report import Outcome, RowSource
from fedattn.core.spans import Role
from fedattn.rest.answers import QueryAnswer, Retried
from fedattn.rest.events import LayerEvent, QueuedEvent, SessionEvent, TokenEvent
from fedattn.rest.query import QueryBody
from fedattn.rest.reports import ParticipantReport, Totals

_MAX_SOURCES, _MAX_INFLUENCES, _LEAST_SHARE = 3, 5, 0.05
_CACHED = {RowSource.CONTRIBUTOR_CACHE, RowSource.PUBLISHER_CACHE}


def stream_answer(
    client: Client, body: QueryBody, console: PlainConsole, told: PlainConsole
) -> QueryAnswer:
    """Ask, and show who takes part, how far they are, and the answer while it is written.

    Args:
        client: of the gateway.
        body: the query.
        console: gets the answer, and nothing else.
        told: gets all else; how far they are only if it is a terminal.

    Raises:
        FedAttnError: the query failed.
    """
    answer: QueryAnswer | None = None
    with (
        told.status("waiting for the participants") as status,
        closing(client.stream(body)) as events,
    ):
        shown = _Progress(told, status)
        for event in events:
            match event:
                case QueryAnswer():
                    answer = event
                case TokenEvent():
                    status.stop()  # which erases its line: the answer begins on a clean one
                    console.write(event.text)
                case _:
                    shown.show(event)
    if answer is None:
        raise no_report()
    console.print()
    return answer


@dataclass(slots=True)
class _Progress:
    """What is told of a query before its answer begins."""

    told: PlainConsole
    status: Status
    num_blocks: int = 0
    num_passed: int = 0

    def show(self, event: QueuedEvent | SessionEvent | LayerEvent | Retried) -> None:
        match event:
            case QueuedEvent():
                self.status.update(event.words)
            case SessionEvent():
                self._show_session(event)
            case Retried():
                why = f"{event.detail}; asking once more, without {', '.join(event.without)}"
                self.told.print(plain(one_line(why), "yellow"))
                self.num_passed = 0
            case LayerEvent():
                self.num_passed += 1
                self.status.update(
                    f"block {event.layer}, {self.num_passed} of {self.num_blocks}: "
                    f"{event.num_rows} rows came, waited {event.wait_s:.2f} s"
                )

    def _show_session(self, event: SessionEvent) -> None:
        members = ", ".join(member.node_id for member in event.members)
        self.told.print(plain(f"session {event.session_id[:8]}: {members}", "dim"))
        for node in event.excluded:
            reason = one_line(node.detail).removeprefix(f"{node.node_id}: ")
            self.told.print(plain(f"without {node.node_id}: {reason}", "yellow"))
        self.num_blocks = len(event.members[-1].sync_layers) if event.members else 0
        self.status.update(f"waiting for the rows of {max(0, len(event.members) - 1)} nodes")


def report_table(answer: QueryAnswer) -> Table:
    """Who did what."""
    table = plain_table(
        "node",
        "role",
        "state",
        right=("passages", "tokens", "KiB up", "compute s", "wait s"),
    )
    for member in answer.participants:
        table.add_row(
            member.node_id,
            member.role,
            _state(member),
            _of(member.passages, member.context_passages),
            _of(member.text_tokens, member.context_tokens),
            f"{member.bytes_up / 1024:.1f}",
            f"{member.compute_s:.2f}",
            f"{member.wait_s:.2f}",
        )
    return table


def _of(used: int, total: int | None) -> str:
    """Such as `4 of 212`."""
    return f"{used}" if total is None else f"{used} of {total}"


def _state(member: ParticipantReport) -> str:
    """How its part ended, or that its rows were there before."""
    if member.state is Outcome.COMPLETE and member.rows in _CACHED:
        return member.rows.replace("_", " ")
    if member.state is Outcome.COMPLETE and member.rows is RowSource.ASKED:
        return f"asked {member.round_trips} times"
    if member.missing_from_layer is not None:
        return f"{member.state} from block {member.missing_from_layer}"
    return member.state


def show_report(answer: QueryAnswer, console: PlainConsole) -> None:
    """Who did what, what went wrong, and what it took."""
    console.print(report_table(answer))
    if answer.sources:
        console.print(_sources(answer))
    if drawn := _influences(answer):
        console.print(f"attention by member: {drawn}")
    if not answer.is_supported:
        console.print("the texts hardly support this answer; do not rely on it", style="yellow")
    for line in _warnings(answer):
        console.print(plain(line, "yellow"))
    console.print(totals_line(answer))


def _sources(answer: QueryAnswer) -> str:
    """Where the answer seems to come from; passages can be read on their own nodes."""
    named = ", ".join(
        f"{source.node_id} passage {source.passage} ({source.share:.0%})"
        for source in answer.sources[:_MAX_SOURCES]
        if source.share >= _LEAST_SHARE
    )
    asked = any(member.rows is RowSource.ASKED for member in answer.participants)
    among = "; of the rows that came: what nodes answered is not in it" * asked
    support = "" if answer.support is None else f"; support {answer.support:.2f}"
    return f"drawn from {named}{among}{support}"


def _influences(answer: QueryAnswer) -> str:
    """Whose rows drew the answer, with passages or without; empty if nobody's did."""
    ranked = sorted(answer.participants, key=lambda member: -(member.influence or 0.0))
    return ", ".join(
        f"{member.node_id} {member.influence:.0%}"
        for member in ranked[:_MAX_INFLUENCES]
        if member.influence is not None and member.influence >= _LEAST_SHARE
    )


def _warnings(answer: QueryAnswer) -> Iterator[str]:
    """What the answer misses of those who took part; who did not was told before it began."""
    for member in answer.participants:
        if not member.state.took_part:
            continue
        if member.detail and member.state is not Outcome.COMPLETE:
            yield f"{member.node_id}: {one_line(member.detail)}"
        if skipped := sum(member.skipped_files.values()):
            counts = member.skipped_files.items()
            reasons = ", ".join(f"{count} {reason.words}" for reason, count in counts)
            files = "file" if skipped == 1 else "files"
            yield f"{member.node_id}: {skipped} {files} of its context not read ({reasons})"


def totals_line(answer: QueryAnswer) -> str:
    """Time and bytes in one line."""
    totals = answer.totals
    speed = totals.tokens_per_s
    decoding = f", then {speed:.1f} tokens/s" if speed else ""
    asked = ""
    if answer.asked is not None:
        trips = max((one.round_trips for one in answer.participants), default=0)
        asked = (
            f"; {trips} round trips, {totals.asked_bytes / 1024:.1f} KiB of queries and answers, "
            f"{answer.asked.accepted} of {answer.asked.drafted} drafts held"
        )
    sent = ""
    if totals.kv_bytes or totals.planned_kv_bytes:
        sent = (
            f"; KV sent {totals.kv_bytes / 1024:.1f} KiB "
            f"of {totals.planned_kv_bytes / 1024:.1f} planned ({_how(answer)}{_steps(totals)})"
        )
    return f"first token after {totals.time_to_first_token_s:.2f} s{decoding}{asked}{sent}"


def _steps(totals: Totals) -> str:
    """How far the byte budget went down, if at all."""
    steps = totals.budget_steps
    return f"; {steps} {'step' if steps == 1 else 'steps'} down for the byte budget" * bool(steps)


def _how(answer: QueryAnswer) -> str:
    """Codec and keep ratio of the first contributor, which stand for all."""
    for member in answer.participants:
        how = member.compression
        if member.role is Role.CONTRIBUTOR and how is not None:
            rows = how.keep_ratio
            kept = "all rows" if rows == 1 else f"{rows:.0%} of the rows by {how.selector}"
            return f"{how.codec}, {kept}"
    return "nobody contributed"
