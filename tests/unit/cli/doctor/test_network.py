"""The doctor looks at aggregator, gateway, model and text."""

import json
import socket
from pathlib import Path

import pytest

from fedattn.cli.doctor.context import check_context, describe
from fedattn.cli.doctor.finding import State
from fedattn.cli.doctor.gateway import check_gateway
from fedattn.cli.doctor.link import Link, check_link, measure
from fedattn.cli.doctor.link import describe as describe_link
from fedattn.cli.doctor.model import check_model
from fedattn.core.address import HostPort
from fedattn.core.contexts import ContextSummary, SkipReason
from fedattn.core.errors import ModelError
from fedattn.core.proxies import Endpoint
from fedattn.model.prepare import FORMAT_VERSION, RECORD_NAME
from tests.harness.runners import running_aggregator
from tests.unit.cli.doctor.subjects import FakeGateway, not_ok, states, subject


async def test_delay_and_speed_of_a_real_aggregator_are_measured() -> None:
    async with running_aggregator() as address:
        link = await measure(Endpoint(HostPort.parse(address)), None)
    assert link.round_trip_s > 0
    assert link.upload_mbit_s > 0


def test_an_aggregator_that_is_not_there_is_a_problem() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        (found,) = check_link(subject("--plaintext", f"--aggregator={address}"))
    assert found.state is State.PROBLEM
    assert "start the aggregator" in found.remedy


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (Link(round_trip_s=0.02, upload_mbit_s=50), [State.OK, State.OK]),
        (Link(round_trip_s=0.6, upload_mbit_s=0.5), [State.WARNING, State.WARNING]),
    ],
)
def test_a_far_or_slow_link_is_a_warning(link: Link, expected: list[State]) -> None:
    assert states(describe_link(link)) == expected


def test_a_link_that_is_too_fast_to_measure_is_no_number() -> None:
    _, rate = describe_link(Link(round_trip_s=0.0001, upload_mbit_s=20971.5))
    assert rate.found.startswith("uploads at more than 1000 Mbit/s")


def test_where_no_node_is_described_there_is_no_link_to_look_at() -> None:
    assert states(check_link(subject())) == [State.SKIPPED]


def test_a_gateway_says_whether_the_node_is_joined() -> None:
    gateway = FakeGateway(nodes=[("a", "f1")])
    assert not_ok(check_gateway(subject("--node-id=a", gateway=gateway))) == []
    (found,) = not_ok(check_gateway(subject("--node-id=b", gateway=gateway)))
    assert "b is not joined" in found.found
    assert states(check_gateway(subject())) == [State.SKIPPED]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    record = {"fingerprint": "f1" * 32, "name": "tiny", "format": FORMAT_VERSION}
    (tmp_path / RECORD_NAME).write_text(json.dumps(record))
    return tmp_path


@pytest.mark.parametrize(
    ("nodes", "state"),
    [
        ([("b", "f1" * 32), ("a", "own")], State.OK),
        ([("b", "f1" * 32), ("c", "f2" * 32)], State.WARNING),
        ([("b", "f2" * 32)], State.PROBLEM),
        ([("a", "own")], State.SKIPPED),
        (None, State.SKIPPED),
    ],
)
def test_the_model_is_held_against_those_of_others(
    prepared: Path, nodes: list[tuple[str, str]] | None, state: State
) -> None:
    gateway = FakeGateway(nodes=nodes)
    examined = subject("--node-id=a", f"--model={prepared}", gateway=gateway)
    assert states(check_model(examined)) == [State.OK, state]


def test_a_model_that_is_not_prepared_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDATTN_CACHE", str(tmp_path))
    (found,) = check_model(subject("--model=owner/name"))
    assert (found.state, found.remedy) == (State.WARNING, "fedattn model prepare owner/name")
    with pytest.raises(ModelError):
        list(check_model(subject("--model=/nowhere")))


def test_counts_of_a_text_are_told_and_no_word_of_it(tmp_path: Path) -> None:
    (tmp_path / "secret-plan.txt").write_text("The harbour closes at nine.")
    (tmp_path / "secret-picture.png").write_bytes(b"\x89PNG")
    found = list(check_context(subject(f"--context={tmp_path}", "--model=/nowhere")))
    assert states(found) == [State.OK, State.OK]
    assert "files: 1, passages: 1" in found[0].found
    assert "1 unknown kind" in found[1].found
    assert not any(word in str(found) for word in ("harbour", "plan", "picture"))


def test_a_text_with_nothing_to_give_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    (found,) = check_context(subject(f"--context={tmp_path}", "--model=/nowhere"))
    assert found.state is State.PROBLEM
    assert states(check_context(subject())) == [State.SKIPPED]


def test_files_that_could_be_read_have_a_remedy() -> None:
    summary = ContextSummary.count(9, 1, 1, [SkipReason.UNDECODABLE, SkipReason.EMPTY])
    _, found = describe(Path("texts"), summary)
    assert found.state is State.WARNING
    assert "--context-encoding" in found.remedy
