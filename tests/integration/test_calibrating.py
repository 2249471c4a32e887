"""A node without a profile makes one of its own, out of the way of sessions."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fedattn.core.report import Pressure
from fedattn.profiles import load_profile
from fedattn.research.calibrate.run import LengthPlan
from services.participant import calibrating
from services.participant.calibrating import (
    BackgroundCalibration,
    StoppedError,
    calibrate_in_background,
)
from services.participant.node import ParticipantNode
from tests.harness.runners import make_node
from tests.harness.tiny import tiny_model, words


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ParticipantNode:
    small = LengthPlan(length=20, facts=1, others=2, worlds=1, questions=1)
    monkeypatch.setattr(calibrating, "QUICK", (small,))
    monkeypatch.setattr(calibrating, "_LOOK_S", 0.001)
    monkeypatch.setattr(calibrating, "_LEAST_PRIORITY", 0)  # a test is not to wait for others
    text = tmp_path / "own.txt"
    text.write_text(words(5, 30))
    return make_node("node-0", tiny_model("llama"), text)


async def test_a_node_has_its_profile_once_it_is_made_and_others_take_it_over(
    node: ParticipantNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "profile.json"
    path.write_text("{}")  # of another version
    await calibrate_in_background(node, path)
    assert node.profile is not None
    kept = load_profile(path)
    assert kept.default == node.profile.default
    assert kept.origin["fitted_tokens"] > 60  # its own text took part
    other = make_node("node-1", tiny_model("llama"), None)
    monkeypatch.setattr(calibrating, "Calibration", None)  # nothing more is computed
    await calibrate_in_background(other, path)
    assert other.profile is not None
    assert other.profile.points == kept.points


class _Waited(threading.Event):
    """Counts waits; the third relieves the node."""

    def __init__(self, relieve: Callable[[], None]) -> None:
        super().__init__()
        self.num_waits = 0
        self._relieve = relieve

    def wait(self, timeout: float | None = None) -> bool:
        self.num_waits += 1
        if self.num_waits == 3:
            self._relieve()
        return False


async def test_sessions_go_first(node: ParticipantNode, tmp_path: Path) -> None:
    work = BackgroundCalibration(node, tmp_path / "profile.json")
    work.stopping = waited = _Waited(node.admission.take("other", "").release)
    work.tell("texts", 1, 10)
    assert waited.num_waits == 3
    work.tell("texts", 2, 10)
    assert waited.num_waits == 3


async def test_a_machine_under_pressure_is_left_alone(
    node: ParticipantNode, tmp_path: Path
) -> None:
    node.pressure.level = Pressure.HIGH
    work = BackgroundCalibration(node, tmp_path / "profile.json")
    work.stopping = waited = _Waited(lambda: setattr(node.pressure, "level", Pressure.NONE))
    work.tell("texts", 1, 10)
    assert waited.num_waits == 3


async def test_a_node_that_stops_ends_its_calibration(
    node: ParticipantNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def run(work: BackgroundCalibration) -> None:
        begun.set()
        try:
            while True:
                work.tell("texts", 1, 10)
        except StoppedError:
            ended.set()

    monkeypatch.setattr(BackgroundCalibration, "run", run)
    task = asyncio.create_task(calibrate_in_background(node, tmp_path / "profile.json"))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await asyncio.to_thread(ended.wait)
    assert node.profile is None


async def test_a_window_too_small_is_said_and_no_failure(
    node: ParticipantNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = LengthPlan(length=900, facts=1, others=1, worlds=1, questions=1)
    monkeypatch.setattr(calibrating, "QUICK", (long,))
    await calibrate_in_background(node, tmp_path / "profile.json")
    assert node.profile is None
