"""Starting a local network: failures say which part, and show its log."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedattn.cli.network import LocalNetwork, NodePlan, Part, local_network
from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError
from tests.harness.codebase import ROOT


def test_part_that_ends_is_named_with_the_end_of_its_log(tiny_folder: Path) -> None:
    with local_network() as network:
        network.start_aggregator()
        network.start_participant(NodePlan(node_id="good", model=str(tiny_folder)))
        network.start_participant(NodePlan(node_id="bad", model="/nowhere"))
        network.start_gateway("good")
        with pytest.raises(ConfigurationError) as caught:
            list(network.wait_ready(["good", "bad"]))
        processes = [part.process for part in network.parts.values()]
    message = str(caught.value)
    assert "bad ended with exit code 1" in message
    assert "error [model]" in message
    assert all(process.poll() is not None for process in processes)  # nothing is left running


def test_up_starts_what_a_file_says_and_stops_at_ctrl_c(tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "a.txt").write_text("The ship lies at pier 4.")
    (tmp_path / "federation.toml").write_text(
        f'publisher = "a"\nmodel = "{tiny_folder}"\nstate = "state"\n'
        '[[node]]\ncontext = "a.txt"\nthreads = 2\n[gateway]\nport = 0\n'
    )
    with subprocess.Popen(
        [sys.executable, "-m", "fedattn.cli.main", "up"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        assert started.stdout is not None
        told = []
        for line in started.stdout:
            told.append(line)
            if line == "stop: Ctrl-C\n":
                started.send_signal(signal.SIGINT)
    assert started.returncode == 0, told
    assert re.search(r"^a +a\.txt +1 +1 +\d+ *$", "".join(told), re.MULTILINE), told
    assert told[-2:] == ["stopping\n", "all stopped\n"]
    assert (tmp_path / "state" / "a" / "passages.db").exists()


def test_a_taken_port_of_the_gateway_is_found_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigurationError, match=rf"cannot listen on 127\.0\.0\.1:{port}: Addr"),
            local_network(port),
        ):
            pytest.fail("the network began")


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_does_not_exist_is_refused(port: int) -> None:
    with pytest.raises(ConfigurationError, match="a port is 0 to 65535"), local_network(port):
        pytest.fail("the network began")


def test_all_parts_are_told_to_stop_the_gateway_first_before_one_is_waited_for(
    tmp_path: Path,
) -> None:
    happened: list[str] = []

    class Process:
        def __init__(self, name: str) -> None:
            self.name = name

        def terminate(self) -> None:
            happened.append(f"{self.name} told")

        def wait(self, _timeout_s: float) -> int:
            happened.append(f"{self.name} awaited")
            return 0

    address = HostPort("127.0.0.1", 1)
    network = LocalNetwork(
        gateway_address=address, aggregator_address=address, log_dir=tmp_path, state_dir=tmp_path
    )
    for name in ("aggregator", "gateway"):
        process: Any = Process(name)
        network.parts[name] = Part(name, process, tmp_path)
    assert network.stop() == {"gateway": 0, "aggregator": 0}
    told = ["gateway told", "aggregator told"]
    assert happened == [*told, "gateway awaited", "aggregator awaited"]
