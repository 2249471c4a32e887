"""The whole system as processes: query, bad input, failures, SIGTERM."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from fedattn.cli.network import LocalNetwork, NodePlan, free_port, local_network
from fedattn.client import Client
from fedattn.core.errors import FedAttnError
from fedattn.core.share import Share
from fedattn.core.spans import Role
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.events import LayerEvent, SessionEvent, TokenEvent
from fedattn.rest.fields import SamplingBody
from fedattn.rest.query import QueryBody
from tests.e2e.conftest import CONTEXTS, PUBLISHER
from tests.harness.forks import run_cli
from tests.harness.tiny import save_tiny_model

QUESTION = "What is the passcode?"
FIELDS = {"question": QUESTION, "plan": "1-4", "sampling": {"max_new_tokens": 4}}
QUERY = QueryBody(
    question=QUESTION,
    share=Share.NOTHING,  # everybody takes part, whatever fits
    plan="1-4",
    sampling=SamplingBody(max_new_tokens=4),
)


def ask(network: LocalNetwork, **change: object) -> QueryAnswer:
    return Client(network.gateway_url).ask(QUERY.model_copy(update=change))


def plan(node_id: str, model: Path, folder: Path) -> NodePlan:
    """A node that has something to give."""
    text = folder / f"{node_id}.txt"
    text.write_text(f"The gate of {node_id} is open.")
    return NodePlan(node_id=node_id, model=str(model), context=text)


def node_ids(answer: QueryAnswer) -> list[str]:
    return [member.node_id for member in answer.participants]


def test_query_streams_session_layers_tokens_and_report(network: LocalNetwork) -> None:
    first, *events, answer = Client(network.gateway_url).stream(QUERY)
    assert isinstance(first, SessionEvent)
    assert isinstance(answer, QueryAnswer)
    assert sum(isinstance(event, LayerEvent) for event in events) == 4
    assert answer.answer == "".join(e.text for e in events if isinstance(e, TokenEvent))
    assert node_ids(answer) == [*CONTEXTS, PUBLISHER]
    assert answer.totals.kv_bytes > 0


def test_any_node_can_publish(network: LocalNetwork) -> None:
    answer = ask(network, publisher="clinic")
    publishers = [node.node_id for node in answer.participants if node.role is Role.PUBLISHER]
    assert publishers == ["clinic"]


def test_ask_prints_the_report_as_json(network: LocalNetwork) -> None:
    asked = run_cli(
        "ask", QUESTION, "--gateway", network.gateway_url, "--json", "--max-new-tokens", "4"
    )
    report = json.loads(asked.stdout)
    assert asked.returncode == 0
    assert {"time_to_first_token_s", "tokens_per_s", "kv_bytes"} <= report["totals"].keys()


def test_ask_streams_for_people(network: LocalNetwork) -> None:
    asked = run_cli("ask", QUESTION, "--gateway", network.gateway_url, "--max-new-tokens", "4")
    assert asked.returncode == 0
    for word in ("session", "clinic", "contributor", "KiB up", "first token after", "cut after 4"):
        assert word in asked.stderr
    assert "clinic" not in asked.stdout  # the answer stands alone


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"question": " "}, "empty_question"),
        ({"plan": "often"}, "invalid_plan"),
        ({"plan": "99"}, "invalid_plan"),
        ({"contributors": ["ghost"]}, "unknown_participant"),
        ({"publisher": "ghost"}, "unknown_participant"),
        ({"question": "why " * 1000}, "context_too_long"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
def test_bad_query_is_a_problem_document_and_leaves_nothing_running(
    network: LocalNetwork, change: dict[str, object], code: str
) -> None:
    refused = httpx.post(f"{network.gateway_url}/v1/queries", json={**FIELDS, **change})
    assert refused.json()["code"] == code
    nodes = Client(network.gateway_url).participants()
    assert {node.active_sessions for node in nodes} == {0}


def test_no_private_text_in_any_log(network: LocalNetwork) -> None:
    ask(network)
    logs = "".join(part.log_path.read_text() for part in network.parts.values())
    assert "answered" in logs  # the logs are not empty
    for secret in ("penicillin", "Pharmacy list", "passcode", QUESTION):
        assert secret not in logs


def test_ask_without_a_gateway_says_what_to_do() -> None:
    asked = run_cli("ask", QUESTION, "--gateway", f"http://127.0.0.1:{free_port()}")
    assert asked.returncode == 1
    assert "error [gateway_unavailable]" in asked.stderr
    assert "fedattn up" in asked.stderr


def test_contributor_with_another_model_is_refused_by_name(
    network: LocalNetwork, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    save_tiny_model(folder, seed=1)
    network.start_participant(NodePlan(node_id="stranger", model=str(folder)))
    try:
        assert list(network.wait_ready(["stranger"])) == ["stranger"]
        with pytest.raises(FedAttnError) as caught:
            ask(network, contributors=["stranger"])
        assert caught.value.code == "model_mismatch"
        states = {member.node_id: member.state for member in ask(network).participants}
        assert states["stranger"] == "excluded"
        assert states["clinic"] == "complete"
    finally:
        assert network.parts.pop("stranger").stop() == 0


@pytest.mark.parametrize("module", ["services.aggregator", "gateway"])
def test_taken_port_is_named_and_nothing_is_left(network: LocalNetwork, module: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", module, "--plaintext", f"--listen={network.aggregator_address}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "error [configuration]: cannot listen on" in ended.stderr


@pytest.mark.parametrize(
    ("module", "flags", "words"),
    [
        ("services.aggregator", ["--max-nodes=many"], ["FEDATTN_AGGREGATOR_MAX_NODES", "many"]),
        ("services.participant", [], ["FEDATTN_PARTICIPANT_NODE_ID"]),
        (
            "services.participant",
            ["--node-id=a b"],
            ["FEDATTN_PARTICIPANT_NODE_ID", "1 to 64 characters"],
        ),
        (
            "services.participant",
            ["--node-id=a", "--context=/nowhere"],
            ["FEDATTN_PARTICIPANT_CONTEXT", "no such file"],
        ),
        (
            "services.participant",
            ["--node-id=a", "--policy=/nowhere.toml"],
            ["FEDATTN_PARTICIPANT_POLICY", "no such file"],
        ),
        ("gateway", ["--publisher=a b"], ["FEDATTN_GATEWAY_PUBLISHER", "1 to 64 characters"]),
    ],
)
def test_bad_setting_is_named_and_refused(module: str, flags: list[str], words: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", module, *flags], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    for word in words:
        assert word in ended.stderr


def test_every_service_ends_with_code_0_on_sigterm(tiny_folder: Path) -> None:
    with local_network() as network:
        network.start_aggregator()
        network.start_participant(NodePlan(node_id="a", model=str(tiny_folder)))
        network.start_participant(NodePlan(node_id="b", model=str(tiny_folder)))
        network.start_gateway("a")
        list(network.wait_ready(["a", "b"]))
        assert network.stop() == {"gateway": 0, "b": 0, "a": 0, "aggregator": 0}


def test_query_runs_over_mutual_tls(tiny_folder: Path, tmp_path: Path) -> None:
    made = run_cli("certs", "init", "a", "b", f"--out={tmp_path}")
    assert made.returncode == 0, made.stderr
    with local_network() as network:
        network.certificates = tmp_path
        network.start_aggregator("--log-format=json")
        network.start_participant(plan("a", tiny_folder, tmp_path))
        network.start_participant(plan("b", tiny_folder, tmp_path))
        network.start_gateway("a")
        list(network.wait_ready(["a", "b"]))
        answer = ask(network)
        assert "plaintext" not in network.parts["aggregator"].log_tail()
    assert node_ids(answer) == ["b", "a"]


@pytest.mark.parametrize(
    ("name", "code"),
    [("aggregator", "aggregator_unavailable"), (PUBLISHER, "publisher_unavailable")],
)
def test_frozen_part_is_named_and_back_once_it_goes_on(
    network: LocalNetwork, name: str, code: str
) -> None:
    ask(network)
    frozen = network.parts[name].process.pid
    os.kill(frozen, signal.SIGSTOP)
    try:
        with pytest.raises(FedAttnError) as caught:
            Client(network.gateway_url, retries=0).ask(QUERY)
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert caught.value.code == code
    list(network.wait_ready([*CONTEXTS, PUBLISHER]))
    assert node_ids(ask(network)) == [*CONTEXTS, PUBLISHER]


def test_killed_contributor_leaves_and_the_rest_answer(tiny_folder: Path, tmp_path: Path) -> None:
    with local_network() as network:
        network.start_aggregator()
        for node_id in ("a", "b", "c"):
            network.start_participant(plan(node_id, tiny_folder, tmp_path))
        network.start_gateway("a")
        list(network.wait_ready(["a", "b", "c"]))
        lost = network.parts.pop("b")
        lost.process.kill()
        lost.process.wait()
        while "b" in network.joined():
            pass
        answer = ask(network)
    assert node_ids(answer) == ["c", "a", "b"]
    assert answer.participants[-1].state == "departed"
