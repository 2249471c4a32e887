"""`fedattn nodes` lists who is joined, for people and for programs."""

import json

import pytest

from fedattn.cli.failures import run_command
from fedattn.cli.main import command_line
from fedattn.cli.nodes import node_table
from fedattn.cli.terminal import output
from fedattn.client import Client
from fedattn.core.report import NodeState, Pressure
from fedattn.rest.participants import NodeHealth, ParticipantInfo


def node(node_id: str, **fields: object) -> ParticipantInfo:
    known: dict[str, object] = {
        "node_id": node_id,
        "model_name": "tiny",
        "model_fingerprint": "9f" * 32,
        "num_layers": 5,
        "max_positions": 256,
        "active_sessions": 2,
        "joined_for_s": 7200.0,
        "can_publish": True,
        "health": NodeHealth(pressure=Pressure.HIGH, memory_free=0.5, temperature_c=61.5),
        "warnings": [],
        "state": NodeState.GOOD,
        "state_reason": "",
        "rests_for_s": 0.0,
        "context_tokens": 1811,
        "context_passages": 28,
        "context_files": 3,
        "skipped_files": {},
    }
    return ParticipantInfo.model_validate(known | fields)


NODES = [
    node("ward-2", warnings=["nothing to give: no \x1b[2Jfiles"]),
    node("ward-1", health=None, context_tokens=None, can_publish=False),
]
GONE = node(
    "ward-3", state="departed", state_reason="its connection broke", left_for_s=240.0, health=None
)


def run(*words: str) -> int:
    return run_command(
        lambda: command_line()(["nodes", *words], prog_name="fedattn", standalone_mode=False)
    )


@pytest.fixture(autouse=True)
def _gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "participants", lambda _: NODES)


def test_a_table_has_a_row_a_node(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--watch") == 0  # as without, where there is no terminal
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["ward-1", "ward-2"]
    assert lines[2].split()[1:] == [
        *("tiny", "9f9f9f9f", "yes", "good", "high", "3", "28", "1811", "2", "50%", "62", "2", "h")
    ]
    assert lines[3] == r"ward-2: nothing to give: no \x1b[2Jfiles"
    assert lines[4] == "2 nodes are joined"


def test_who_let_others_wait_is_told_with_the_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = node("ward-1", state="late", state_reason="it declined late")
    resting = node("ward-2", state="resting", state_reason="it left late", rests_for_s=24.4)
    monkeypatch.setattr(Client, "participants", lambda _: [late, resting])
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[4] for line in lines[1:3]] == ["late", "resting"]
    assert lines[3:5] == [
        "ward-1: late: it declined late",
        "ward-2: not asked for another 24 s: it left late",
    ]


def test_programs_get_what_the_gateway_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    assert json.loads(capsys.readouterr().out) == [one.model_dump(mode="json") for one in NODES]


def test_who_left_is_listed_with_when_and_why_and_is_not_joined(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "participants", lambda _: [*NODES, GONE])
    assert run() == 0
    words = capsys.readouterr().out.splitlines()
    assert words[3].split()[:5] == ["ward-3", "tiny", "9f9f9f9f", "yes", "departed"]
    assert words[-2:] == ["ward-3: left 4 min ago; its connection broke", "2 nodes are joined"]


def test_a_live_table_is_not_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json", "--watch") == 1
    assert "--watch and --json" in capsys.readouterr().err


def test_what_is_not_known_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    output().print(node_table(NODES[1:]))
    row = capsys.readouterr().out.splitlines()[1].split()
    cells = ("tiny", "9f9f9f9f", "good", "-", "3", "28", "-", "2", "-", "-", "2", "h")
    assert row == ["ward-1", *cells]
