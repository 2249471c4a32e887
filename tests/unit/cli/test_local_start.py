"""What is told of a network that starts and runs, with processes that are none."""

import io
import threading
from pathlib import Path
from typing import Any

import pytest

from fedattn.cli.federation import Federation, GatewayTable, NodeTable
from fedattn.cli.local_start import LocalFederation
from fedattn.cli.log_lines import LogTail
from fedattn.cli.network import LocalNetwork, Part
from fedattn.cli.node_watch import NodeWatch
from fedattn.cli.start_summary import show_start
from fedattn.cli.terminal import PlainConsole
from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError, UnavailableError


class Process:
    """Runs until it has a code."""

    def __init__(self) -> None:
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code


@pytest.fixture
def running(tmp_path: Path) -> LocalFederation:
    """Nodes `a` with a text and `desk` without, which have all joined."""
    (tmp_path / "a.txt").touch()
    network = LocalNetwork(
        gateway_address=HostPort("127.0.0.1", 8123),
        aggregator_address=HostPort("127.0.0.1", 1),
        log_dir=tmp_path,
        state_dir=tmp_path,
    )
    for name in ("aggregator", "a", "desk", "gateway"):
        process: Any = Process()
        network.parts[name] = Part(name, process, tmp_path / f"{name}.log")
        event = "serving" if name == "gateway" else "joined"
        network.parts[name].log_path.write_text(f'{{"event": "{event}"}}\n')
    console = PlainConsole()
    console.file = io.StringIO()
    federation = Federation(node=[NodeTable(id="a", context=tmp_path / "a.txt")])
    return LocalFederation(
        console=console,
        network=network,
        nodes=federation.nodes(),
        watches={
            name: NodeWatch(
                node_id=name, log=LogTail(tmp_path / f"{name}.log"), index_path=tmp_path / "none"
            )
            for name in ("desk", "a")
        },
        gateway_log=LogTail(tmp_path / "gateway.log"),
    )


def told(running: LocalFederation) -> str:
    assert isinstance(running.console.file, io.StringIO)
    return running.console.file.getvalue()


def end(running: LocalFederation, name: str, code: int = 3) -> None:
    process: Any = running.network.parts[name].process
    process.code = code


def test_a_network_is_ready_once_all_have_joined(running: LocalFederation) -> None:
    assert running.wait_ready(threading.Event())
    assert "a has joined" in told(running)


def test_a_network_that_is_told_to_stop_stops_starting(running: LocalFederation) -> None:
    running.network.parts["a"].log_path.write_text("")
    stopping = threading.Event()
    stopping.set()
    assert not running.wait_ready(stopping)


def test_a_part_that_ends_while_it_starts_ends_all(running: LocalFederation) -> None:
    running.network.parts["a"].log_path.write_text("error [model]: gone\n")
    end(running, "a")
    with pytest.raises(ConfigurationError, match=r"a ended with exit code 3(.|\n)*\[model\]: gone"):
        running.wait_ready(threading.Event())


def test_a_node_that_ends_later_is_told_and_the_others_go_on(running: LocalFederation) -> None:
    end(running, "a")
    running.say_who_ended()
    assert "a ended with exit code 3" in told(running)
    assert running.watches.keys() == {"desk"}
    assert "a" not in running.network.parts


@pytest.mark.parametrize("name", ["gateway", "aggregator"])
def test_without_gateway_or_aggregator_nothing_goes_on(running: LocalFederation, name: str) -> None:
    end(running, name)
    with pytest.raises(UnavailableError, match=f"{name} ended with exit code 3") as ended:
        running.say_who_ended()
    assert ended.value.code == f"{name}_unavailable"


def test_a_part_that_was_killed_is_told_by_the_signal(running: LocalFederation) -> None:
    end(running, "a", code=-9)
    running.say_who_ended()
    assert "a was killed by signal 9;" in told(running)


def test_the_summary_says_who_has_what_and_how_to_ask(
    running: LocalFederation, tmp_path: Path
) -> None:
    watch = running.watches["a"]
    watch.num_files, watch.num_passages, watch.num_tokens = 2, 40, 1800
    watch.skipped["b.png"] = "unknown kind"
    keys = tmp_path / "keys.json"
    keys.touch()
    show_start(running, Federation(node=[NodeTable(id="a")], gateway=GatewayTable(keys=keys)))
    shown = told(running)
    for words in (
        "b.png (unknown kind)      2        40    1800",
        "http://127.0.0.1:8123/",
        'fedattn ask --gateway http://127.0.0.1:8123 "your question"',
        f"logs: {tmp_path}, a file each",
        f"state: {tmp_path}, a folder each, for --state of fedattn passages and approvals; goes",
        f"FEDATTN_API_KEY set to a key of {keys}",
    ):
        assert words in shown


def test_a_text_that_gives_nothing_is_told(running: LocalFederation) -> None:
    show_start(running, Federation(node=[NodeTable(id="a")]))
    assert "nothing to give: no files" in told(running)
