"""Profiles of edge devices: settings that load, limits that hold what the cost model says."""

from pathlib import Path

import pytest

from fedattn.core.costs import session_memory
from fedattn.core.plans import PlanSpec, RolePlans
from fedattn.core.spans import build_layout
from fedattn.model.loading import read_sizes
from fedattn.model.placement import choose_weights
from fedattn.model.prepare import prepare_model
from services.participant.settings import ParticipantSettings

FOLDER = Path("deploy/edge/profiles")
PROFILES = sorted(FOLDER.glob("*.env"))
RUNTIME_BYTES = 330 << 20
"""Python, torch and transformers, measured; without CUDA."""
TOKENS = 512


def read_lines(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    return dict(line.split("=", 1) for line in lines)


def to_bytes(text: str) -> int:
    return int(text[:-1]) << {"M": 20, "G": 30}[text[-1]]


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_profile_is_a_valid_setting_of_a_participant(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in read_lines(path).items():
        if name.startswith("FEDATTN_"):
            monkeypatch.setenv(name, value)
    settings = ParticipantSettings.load(["--node-id=a"])
    assert settings.threads * 100 == int(read_lines(path)["CPUQuota"].removesuffix("%"))
    assert 0 < settings.high_temperature_c < settings.critical_temperature_c


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_limits_hold_what_the_cost_model_expects(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = read_lines(path)
    for name, value in lines.items():
        if name.startswith("FEDATTN_"):
            monkeypatch.setenv(name, value)
    settings = ParticipantSettings.load(["--node-id=a"])
    prepared = prepare_model(lines["FEDATTN_PARTICIPANT_MODEL"])
    weights = choose_weights(settings.weights, prepared)
    sizes = read_sizes(prepared, weights)
    every = PlanSpec("all").resolve(sizes.kv.num_layers)
    layout = build_layout(
        num_layers=sizes.kv.num_layers,
        prefix_len=30,
        contributors=[(f"node-{i}", TOKENS) for i in range(3)],
        publisher=("publisher", TOKENS),
        plans=RolePlans(contributors=every, publisher=every),
    )
    places = range(len(layout.members))
    most = max(session_memory(layout, sizes, place, num_new_tokens=64) for place in places)
    int8_bytes = 0 if weights.blocks else sizes.weight_bytes // 4  # its own
    own = RUNTIME_BYTES + int8_bytes + most
    limits = to_bytes(lines["MemoryHigh"]), to_bytes(lines["MemoryMax"])
    memory = settings.memory or limits[0] * 9 // 10 - sizes.weight_bytes
    assert own < memory < limits[0] - sizes.weight_bytes < limits[1]
