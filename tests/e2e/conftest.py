"""Real processes on the embedded model; `make setup` has prepared it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedattn.cli import network as network_of_processes
from fedattn.cli.network import LocalNetwork, NodePlan, local_network
from fedattn.model.prepare import prepare_model
from tests.harness.forks import fork_part
from tests.harness.tiny import save_tiny_model

CONTEXTS = {
    "clinic": "Clinic note. Patient 31 is allergic to penicillin.",
    "pharmacy": "Pharmacy list. The passcode of the store room is 4417.",
}
PUBLISHER = "office"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model on disk, prepared, so that processes start fast."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    save_tiny_model(folder)
    return prepare_model(str(folder), cache_dir=tmp_path_factory.mktemp("cache")).path


@pytest.fixture(scope="session", autouse=True)
def _parts_are_forked() -> Iterator[None]:
    """But those of `fedattn up`, `demo` and `eval --network`, which start as everywhere."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_of_processes, "_start_process", fork_part)
        yield


@pytest.fixture(scope="module")
def network(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    """Two contributors, a publisher and a gateway on a tiny model."""
    folder = tmp_path_factory.mktemp("contexts")
    nodes = []
    for node_id, text in CONTEXTS.items():
        path = folder / f"{node_id}.txt"
        path.write_text(text)
        nodes.append(NodePlan(node_id=node_id, context=path, model=str(tiny_folder)))
    nodes.append(NodePlan(node_id=PUBLISHER, model=str(tiny_folder)))
    with local_network() as running:
        running.start_aggregator()
        for node in nodes:
            running.start_participant(node, "--log-format=json")
        running.start_gateway(PUBLISHER)
        list(running.wait_ready([node.node_id for node in nodes]))
        yield running
