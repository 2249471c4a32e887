"""Random words in every text, question and answer, searched for wherever they should not be."""

import os
import re
import secrets
import signal
import stat
import string
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedattn.cli.network import LocalNetwork, NodePlan, free_port, local_network
from fedattn.client import Client
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.fields import CompressionBody, SamplingBody
from fedattn.rest.query import QueryBody
from fedattn.runtime.state import PASSAGES_FILE

SENTENCES = {
    "harbour": "Harbour log. The ship {} arrived this morning and lies at pier 4.",
    "customs": "Customs office. The pass code of the customs is {}.",
}
CONTRIBUTORS = tuple(SENTENCES)
PUBLISHER = "desk"


def canary(alphabet: str = string.ascii_uppercase, length: int = 10) -> str:
    """A word that occurs nowhere else."""
    return "".join(secrets.choice(alphabet) for _ in range(length))


@dataclass(frozen=True, slots=True)
class Watched:
    """A network that has answered a question, and what must stay where it is.

    Attributes:
        texts: canary of each contributor's text, by node.
        question: canary of the question.
    """

    network: LocalNetwork
    texts: dict[str, str]
    question: str
    answer: QueryAnswer
    metrics: dict[str, int]

    @property
    def words(self) -> list[str]:
        return [*self.texts.values(), self.question]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("texts")
    texts = {"harbour": canary(), "customs": f"ZQ-{canary(string.digits, 4)}"}  # one to repeat
    question = canary()
    with local_network() as network:
        metrics = {name: free_port() for name in ("aggregator", *CONTRIBUTORS, PUBLISHER)}
        metrics["gateway"] = free_port()

        def flags(name: str) -> tuple[str, ...]:
            return ("--log-level=debug", f"--metrics=127.0.0.1:{metrics[name]}")

        network.start_aggregator(*flags("aggregator"))
        for name, word in texts.items():
            path = folder / f"{name}.txt"
            path.write_text(SENTENCES[name].format(word))
            network.start_participant(NodePlan(node_id=name, context=path), *flags(name))
        network.start_participant(NodePlan(node_id=PUBLISHER), *flags(PUBLISHER))
        network.start_gateway(PUBLISHER, *flags("gateway"))
        list(network.wait_ready([*CONTRIBUTORS, PUBLISHER]))
        body = QueryBody(
            question=f"I am {question}. What is the pass code of the customs?",
            plan="1-29",
            compression=CompressionBody(codec="bf16"),
            timeline=True,
            sampling=SamplingBody(max_new_tokens=24),
        )
        answer = Client(network.gateway_url).ask(body)
        yield Watched(network, texts, question, answer, metrics)


def found(data: bytes, words: list[str]) -> list[str]:
    """Those of some words that occur, in any encoding or as a list of characters.

    Wider encodings of these words put nothing but zeros between their letters.
    """
    narrow = data.translate(None, b"\0")
    return [word for word in words if word.encode() in narrow]


def memory_of(pid: int) -> Iterator[bytes]:
    """What a process has written into its memory, a mapping each."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    try:
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for line in maps:
                if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line):
                    start, stop = (int(text, 16) for text in match.groups())
                    memory.seek(start)
                    try:
                        yield memory.read(stop - start)
                    except OSError:  # a mapping without pages, such as a device's
                        continue
    except PermissionError:
        pytest.skip("this user may not read the memory of its own processes (ptrace_scope)")


def listening_ports(pid: int) -> set[int]:
    """TCP ports that a process listens on."""
    sockets = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return {
        int(line[1].rpartition(":")[2], 16)
        for line in lines
        if line[3] == "0A" and f"socket:[{line[9]}]" in sockets
    }


def words_in_memory(watched: Watched, name: str) -> set[str]:
    pid = watched.network.parts[name].process.pid
    return {word for part in memory_of(pid) for word in found(part, watched.words)}


def test_the_word_came_all_the_way(watched: Watched) -> None:
    """Or the search would prove nothing."""
    assert watched.texts["customs"] in watched.answer.answer


def test_report_and_timeline_hold_no_text(watched: Watched) -> None:
    report = watched.answer.model_copy(update={"answer": ""}).model_dump_json()
    assert len(report) > 1000
    assert found(report.encode(), watched.words) == []


def test_logs_at_their_most_talkative_hold_no_text(watched: Watched) -> None:
    for part in watched.network.parts.values():
        log = part.log_path.read_bytes()
        assert log
        assert found(log, watched.words) == [], part.name


def test_metrics_hold_no_text(watched: Watched) -> None:
    for name, port in watched.metrics.items():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            numbers = response.read()
        assert b"fedattn_" in numbers
        assert found(numbers, watched.words) == [], name


def test_aggregator_has_never_had_a_text_in_its_memory(watched: Watched) -> None:
    """Though question and answer went through it, from gateway to publisher and back."""
    assert words_in_memory(watched, "aggregator") == set()
    assert watched.question in words_in_memory(watched, "gateway")


def test_publisher_listens_on_no_port(watched: Watched) -> None:
    """But for its numbers: gateways reach it over connections that it opened, as behind NAT."""
    pid = watched.network.parts[PUBLISHER].process.pid
    assert listening_ports(pid) == {watched.metrics[PUBLISHER]}


def test_nodes_have_what_is_theirs_in_memory(watched: Watched) -> None:
    customs = watched.texts["customs"]
    for name, word in watched.texts.items():  # they were told the question
        assert {word} <= words_in_memory(watched, name) <= {word, watched.question}
    known = words_in_memory(watched, PUBLISHER)
    assert {watched.question} <= known <= {watched.question, customs}  # it is in the answer


def test_nothing_is_left_on_disk(watched: Watched) -> None:
    files = [path for path in watched.network.log_dir.rglob("*") if path.is_file()]
    assert any(path.name == "audit.jsonl" for path in files)
    for path in files:
        own = watched.texts.get(path.parent.name, "")
        is_index = path.name.startswith(PASSAGES_FILE)
        assert set(found(path.read_bytes(), watched.words)) <= ({own} if is_index else set())
        assert not is_index or stat.S_IMODE(path.stat().st_mode) == 0o600


def test_crash_output_holds_no_text(watched: Watched) -> None:
    part = watched.network.parts.pop("customs")
    os.kill(part.process.pid, signal.SIGABRT)
    part.process.wait()
    assert found(part.log_path.read_bytes(), watched.words) == []
