"""Consoles, tables and streamed answers show what they are given, and nothing else happens."""

import io
from collections.abc import Generator
from typing import Unpack

import pytest

from fedattn.cli.answers import report_table, show_report, stream_answer, totals_line
from fedattn.cli.terminal import PlainConsole, plain, plain_table
from fedattn.client import Client
from fedattn.client.options import QueryOptions
from fedattn.core.contexts import SkipReason
from fedattn.core.report import Outcome, RowSource
from fedattn.rest.answers import AnswerSource, Retried
from fedattn.rest.events import (
    LayerEvent,
    QueryEvent,
    QueuedEvent,
    SessionEvent,
    SessionMember,
    TokenEvent,
)
from fedattn.rest.query import QueryBody
from tests.harness.answers import sample_answer, sample_report

FOREIGN = "[red]x[/] :smile: \x1b[2J [/nothing]"
SHOWN = r"[red]x[/] :smile: \x1b[2J [/nothing]"


def shown_on(console: PlainConsole) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def console() -> PlainConsole:
    console = PlainConsole()
    console.file = io.StringIO()
    return console


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> PlainConsole:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    console = PlainConsole()
    console.file = io.StringIO()
    return console


def test_markup_and_emoji_codes_of_others_are_text(console: PlainConsole) -> None:
    console.print(FOREIGN, style="dim")
    assert shown_on(console) == SHOWN + "\n"


def test_cells_of_tables_are_text_too(console: PlainConsole) -> None:
    table = plain_table("node", right=("tokens",))
    table.add_row(FOREIGN, "7")
    console.print(table)
    assert SHOWN in shown_on(console)


def test_a_status_is_text_too(terminal: PlainConsole) -> None:
    with terminal.status(plain(FOREIGN)):
        pass
    assert SHOWN in shown_on(terminal)


def test_names_are_not_cut_where_no_terminal_is(console: PlainConsole) -> None:
    table = plain_table("node", right=("tokens",))
    table.add_row("n" * 64, "7")
    console.print(table)
    assert "n" * 64 in shown_on(console)


def test_pieces_of_an_answer_keep_tabs_blanks_and_line_feeds(console: PlainConsole) -> None:
    for piece in ("a\tb", " ", "\n", "", "c"):
        console.write(piece)
    assert shown_on(console) == "a\tb \nc"


class Scripted(Client):
    """A gateway's answer, without a gateway."""

    def __init__(self, *events: QueryEvent) -> None:
        super().__init__("127.0.0.1:1")
        self.events = events

    def stream(
        self, question: str | QueryBody, **options: Unpack[QueryOptions]
    ) -> Generator[QueryEvent, None, None]:
        yield from self.events


def test_why_a_node_is_left_out_is_one_line_of_text(console: PlainConsole) -> None:
    report = sample_report("node-b", detail=f"{FOREIGN}\nnode-c is lost")
    event = SessionEvent(
        session_id="5f2b7c1e9a",
        prefix_len=24,
        num_layers=30,
        row_bytes=768,
        members=[],
        excluded=[report],
    )
    stream_answer(Scripted(event, sample_answer()), QueryBody(question="Who?"), console, console)
    assert f"without node-b: {SHOWN} node-c is lost\n" in shown_on(console)


def answer_events(text: str) -> tuple[QueryEvent, ...]:
    member = SessionMember(
        node_id="node-a", role="contributor", span_start=0, span_stop=3, sync_layers=[7]
    )
    return (
        SessionEvent(
            session_id="5f2b7c1e9a",
            prefix_len=24,
            num_layers=30,
            row_bytes=768,
            members=[member],
            excluded=[],
        ),
        LayerEvent(layer=29, num_rows=3, wait_s=0.1, arrivals=[]),
        TokenEvent(text=text),
        sample_answer(),
    )


def test_an_answer_is_verbatim_and_the_report_follows_on_a_new_line(console: PlainConsole) -> None:
    body = QueryBody(question="Who?")
    answer = stream_answer(Scripted(*answer_events(FOREIGN)), body, console, console)
    console.print(report_table(answer))
    assert shown_on(console).splitlines()[1] == SHOWN
    assert "session 5f2b7c1e: node-a\n" in shown_on(console)


def test_a_piped_answer_stands_alone(console: PlainConsole, terminal: PlainConsole) -> None:
    stream_answer(
        Scripted(*answer_events("Pier 4.")), QueryBody(question="Who?"), console, terminal
    )
    assert shown_on(console) == "Pier 4.\n"
    assert "session 5f2b7c1e: node-a" in shown_on(terminal)


def test_rows_are_told_block_by_block_on_a_terminal(terminal: PlainConsole) -> None:
    member, layer, *_ = answer_events("")
    stream_answer(
        Scripted(member, layer, sample_answer()), QueryBody(question="Who?"), terminal, terminal
    )
    assert "block 29, 1 of 1: 3 rows came, waited 0.10 s" in shown_on(terminal)


def test_a_terminal_shows_where_a_query_stands_in_the_line(terminal: PlainConsole) -> None:
    queued = QueuedEvent(place=3, of=7, estimate_s=12.4)
    stream_answer(Scripted(queued, sample_answer()), QueryBody(question="Who?"), terminal, terminal)
    assert "waiting: 3 of 7, about 12 s" in shown_on(terminal)


def test_progress_is_erased_before_the_answer_begins(terminal: PlainConsole) -> None:
    stream_answer(
        Scripted(*answer_events("The traffic")), QueryBody(question="Who?"), terminal, terminal
    )
    before, _, _ = shown_on(terminal).partition("The traffic")
    assert before.endswith("\x1b[2K")  # the line it was on


def test_a_report_says_what_the_answer_misses(console: PlainConsole) -> None:
    lost = sample_report(
        "node-b", state=Outcome.LOST, missing_from_layer=21, detail="connection lost"
    )
    unread = sample_report(
        "node-c", skipped_files={SkipReason.UNKNOWN_KIND: 1, SkipReason.UNDECODABLE: 2}
    )
    show_report(sample_answer(participants=[lost, unread]), console)
    assert "lost from block 21" in shown_on(console)
    assert "\nnode-b: connection lost\n" in shown_on(console)
    assert (
        "\nnode-c: 3 files of its context not read (1 unknown kind, 2 undecodable)\n"
        in shown_on(console)
    )


def test_a_report_speaks_of_rows_only_where_some_were_sent() -> None:
    assert "KV sent 2.0 KiB of 4.0 planned (int8, all rows)" in totals_line(sample_answer())
    still = sample_answer().totals.model_copy(update={"kv_bytes": 0, "planned_kv_bytes": 0})
    assert totals_line(sample_answer(totals=still)) == "first token after 0.75 s, then 8.0 tokens/s"


def test_sources_say_that_nodes_which_were_asked_are_not_among_them(console: PlainConsole) -> None:
    source = AnswerSource(node_id="node-a", passage=3, share=1.0)
    asked = sample_report("node-b", rows=RowSource.ASKED, round_trips=7)
    show_report(
        sample_answer(sources=[source], participants=[sample_report("node-a"), asked]), console
    )
    words = "node-a passage 3 (100%); of the rows that came: what nodes answered is not in it; supp"
    assert words in shown_on(console)


def test_a_second_try_says_who_was_lost_in_the_first(console: PlainConsole) -> None:
    retried = Retried(
        without=["desk"], code="publisher_unavailable", detail="publisher desk is gone"
    )
    first, layer, *rest = answer_events("Pier 4.")
    events = (first, layer, retried, first, layer, *rest)
    stream_answer(Scripted(*events), QueryBody(question="Who?"), console, console)
    assert "\npublisher desk is gone; asking once more, without desk\n" in shown_on(console)
    assert shown_on(console).endswith("Pier 4.\n")


def test_who_left_is_named_before_the_answer_and_listed_after_it(console: PlainConsole) -> None:
    gone = sample_report(
        "node-b", state=Outcome.DEPARTED, detail="node-b: left 4 min ago; its connection broke"
    )
    first, *rest = answer_events("Pier 4.")
    assert isinstance(first, SessionEvent)
    told = first.model_copy(update={"excluded": [gone]})
    stream_answer(Scripted(told, *rest), QueryBody(question="Who?"), console, console)
    show_report(sample_answer(participants=[gone]), console)
    words = shown_on(console)
    assert "\nwithout node-b: left 4 min ago; its connection broke\n" in words
    assert "departed" in words
    assert words.count("its connection broke") == 1
