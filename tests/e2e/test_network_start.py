"""Starting a local network: failures say which part, and show its log."""

import socket
from pathlib import Path
from typing import Any

import pytest

from fedattn.cli.network import LocalNetwork, NodePlan, Part, local_network
from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError


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
    network = LocalNetwork(gateway_address=address, aggregator_address=address, log_dir=tmp_path)
    for name in ("aggregator", "gateway"):
        process: Any = Process(name)
        network.parts[name] = Part(name, process, tmp_path)
    assert network.stop() == {"gateway": 0, "aggregator": 0}
    told = ["gateway told", "aggregator told"]
    assert happened == [*told, "gateway awaited", "aggregator awaited"]
