"""What a node does when it is hot or short of memory, and what it reads."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fedattn.core.errors import NodeBusyError
from fedattn.core.report import Pressure
from services.participant.machine import Readings, read_sensors, usable_cpus
from services.participant.pressure import PressureGauge, PressureLimits

LIMITS = PressureLimits(
    high_c=75, critical_c=82, high_memory=0.15, critical_memory=0.07, keep_ratio=0.4
)


def gauge(*readings: tuple[float, float | None]) -> PressureGauge:
    """A gauge that will read these (free memory, temperature), the first while it is made."""
    sensors: Iterator[Readings] = (Readings(memory_free=m, temperature_c=t) for m, t in readings)
    return PressureGauge(LIMITS, lambda: next(sensors))


@pytest.mark.parametrize(
    ("memory_free", "temperature", "level"),
    [
        (0.5, 40.0, Pressure.NONE),
        (0.5, None, Pressure.NONE),
        (0.5, 75.0, Pressure.HIGH),
        (0.5, 82.0, Pressure.CRITICAL),
        (0.1, 40.0, Pressure.HIGH),
        (0.05, None, Pressure.CRITICAL),
    ],
)
def test_level_is_the_worse_of_heat_and_memory(
    memory_free: float, temperature: float | None, level: Pressure
) -> None:
    assert gauge((memory_free, temperature)).level is level


def test_no_limits_mean_no_pressure() -> None:
    worst = Readings(memory_free=0.0, temperature_c=120.0)
    assert PressureLimits().level(worst) is Pressure.NONE


def test_pressure_falls_only_by_a_margin() -> None:
    watched = gauge((0.5, 40), (0.5, 76), (0.5, 74), (0.5, 71))
    assert [watched.update() for _ in range(3)] == [Pressure.HIGH, Pressure.HIGH, Pressure.NONE]


def test_high_pressure_halves_threads_and_rows() -> None:
    calm, hot = gauge((0.5, 40)), gauge((0.5, 78))
    assert (calm.threads(4), calm.max_keep_ratio) == (4, 1.0)
    assert (hot.threads(4), hot.threads(1), hot.max_keep_ratio) == (2, 1, 0.4)


def test_critical_pressure_refuses_and_says_what_it_read() -> None:
    with pytest.raises(NodeBusyError, match=r"memory_free 50%, temperature 90 C"):
        gauge((0.5, 40), (0.5, 90)).admit()


def group(root: Path, own: str, files: dict[str, str]) -> Path:
    """A machine whose process is in the control group `own`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"0::{own}\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_memory_of_a_systemd_unit(tmp_path: Path) -> None:
    files = {
        "node.service/memory.max": "1000000\n",
        "node.service/memory.current": "900000\n",
        "node.service/memory.stat": "anon 500000\ninactive_file 200000\n",
        "node.service/cpu.max": "150000 100000\n",
    }
    root = group(tmp_path, "/node.service", files)
    assert read_sensors(root).memory_free == pytest.approx(0.3)
    assert usable_cpus(root) <= 2


def test_memory_of_an_old_container(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": "1000000\n",
        "memory/memory.usage_in_bytes": "900000\n",
        "memory/memory.stat": "total_inactive_file 400000\n",
        "cpu/cpu.cfs_quota_us": "100000\n",
        "cpu/cpu.cfs_period_us": "100000\n",
    }
    root = group(tmp_path, "/docker/abc", files)
    assert read_sensors(root).memory_free == pytest.approx(0.5)
    assert usable_cpus(root) == 1


@pytest.mark.parametrize("limit", ["max", "9223372036854771712"])
def test_without_a_limit_the_machine_counts(tmp_path: Path, limit: str) -> None:
    root = group(tmp_path, "/", {"memory.max": limit, "memory.current": "5", "cpu.max": "max 9"})
    machine = psutil.virtual_memory()
    assert read_sensors(root).memory_free == pytest.approx(
        machine.available / machine.total, abs=0.05
    )
    assert usable_cpus(root) == usable_cpus(tmp_path / "nowhere")


def test_hottest_plausible_sensor_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        def __init__(self, current: float) -> None:
            self.current = current

    sensors = {"cpu_thermal": [Entry(61.5), Entry(64.0)], "broken": [Entry(-273.0), Entry(1e6)]}
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: sensors, raising=False)
    assert read_sensors().temperature_c == 64.0
