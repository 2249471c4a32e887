"""Starting a local network: failures say which part, and show its log."""

from pathlib import Path

import pytest

from fedattn.cli.network import NodePlan, local_network
from fedattn.core.errors import ConfigurationError


def test_part_that_ends_is_named_with_the_end_of_its_log(tiny_folder: Path) -> None:
    with local_network() as network:
        network.start_aggregator()
        network.start_participant(NodePlan(node_id="good", model=str(tiny_folder)))
        network.start_participant(NodePlan(node_id="bad", model="/nowhere"))
        network.start_gateway(["good"])
        with pytest.raises(ConfigurationError) as caught:
            list(network.wait_ready(["good", "bad"]))
        processes = [part.process for part in network.parts.values()]
    message = str(caught.value)
    assert "bad ended with exit code 1" in message
    assert "error [model]" in message
    assert all(process.poll() is not None for process in processes)  # nothing is left running
