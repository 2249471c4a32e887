"""The small network that several files of tests start from."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fedattn.model.loading import LoadedModel
from tests.harness.networks import Network, running_network
from tests.harness.tiny import tiny_model


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny_model("llama")


@pytest.fixture
async def network(model: LoadedModel, tmp_path: Path) -> AsyncIterator[Network]:
    async with running_network(model, tmp_path) as running:
        yield running
