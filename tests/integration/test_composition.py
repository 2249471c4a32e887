"""A node as a process composes it, of settings alone."""

from pathlib import Path

import pytest
import torch

from fedattn.model.layer_cache import LayerCache
from services.participant.app import build_node
from services.participant.kv_cache import CachedAsked
from services.participant.settings import ParticipantSettings
from tests.harness.tiny import save_tiny_model


@pytest.mark.parametrize("publishes", [False, True])
def test_any_node_keeps_what_it_is_asked_about_and_a_publisher_what_it_was_sent(
    publishes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDATTN_CACHE", str(tmp_path / "cache"))
    save_tiny_model(tmp_path / "model")
    settings = ParticipantSettings(
        node_id="node",
        aggregator="127.0.0.1:1",
        model=str(tmp_path / "model"),
        state=tmp_path,
        publish=publishes,
        threads=1,
    )
    node = build_node(settings)
    rows = LayerCache(torch.ones(1, 2, 3, 8), torch.ones(1, 2, 3, 8), torch.arange(3))
    node.asked.put(b"text", CachedAsked({1: rows}))
    kept, num_bytes = node.asked.snapshot(1), node.rows.max_bytes
    node.close()
    assert kept.keys() == {b"text"}
    assert bool(num_bytes) == publishes
