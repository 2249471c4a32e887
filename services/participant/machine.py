"""What this machine still has to give: CPUs, memory, heat it can take.

A service may hold less than the machine: control groups (those of containers and systemd, version
2 and 1) bound its memory and its share of CPU time.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

_ROOT = Path("/")
_MAX_PLAUSIBLE_C = 150.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What the sensors say.

    Attributes:
        memory_free: share of the memory that is left, 0 to 1.
        temperature_c: of the hottest sensor, degrees Celsius; None if there is none.
    """

    memory_free: float
    temperature_c: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes that this process may still take, and those that there are for it at all."""

    free: int
    total: int


def read_sensors(root: Path = _ROOT) -> Readings:
    """Read memory and temperature now; takes about a millisecond."""
    machine = psutil.virtual_memory()
    free = machine.available / machine.total
    limit = memory_limit(root)
    if limit is not None:
        free = min(free, max(0.0, 1 - _working_set(root) / limit))
    return Readings(memory_free=free, temperature_c=_hottest())


def read_memory(root: Path = _ROOT) -> Memory:
    """What a process of this control group has of the machine's memory now."""
    machine = psutil.virtual_memory()
    limit = memory_limit(root)
    if limit is None:
        return Memory(free=machine.available, total=machine.total)
    return Memory(free=min(machine.available, max(0, limit - _working_set(root))), total=limit)


def own_bytes() -> int:
    """Pages that this process holds now, without those of files, such as mapped weights."""
    info = psutil.Process().memory_info()
    return int(info.rss - getattr(info, "shared", 0))  # which not every platform tells


def usable_cpus(root: Path = _ROOT) -> int:
    """CPUs this process may keep busy, at least 1."""
    allowed = len(os.sched_getaffinity(0))
    share = _cpu_share(root)
    return allowed if share is None else max(1, min(allowed, math.ceil(share)))


def _hottest() -> float | None:
    if not hasattr(psutil, "sensors_temperatures"):  # not on every platform
        return None
    sensors = psutil.sensors_temperatures().values()
    values = [entry.current for entries in sensors for entry in entries]
    return max((value for value in values if 0 < value < _MAX_PLAUSIBLE_C), default=None)


def memory_limit(root: Path = _ROOT) -> int | None:
    """Bytes its control group may hold; None for no limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(root, name)
        if text.isdigit() and int(text) < psutil.virtual_memory().total:
            return int(text)
    return None


def _working_set(root: Path) -> int:
    """Bytes its control group holds, without file pages that were not read lately."""
    for folder, name in (("", "memory.current"), ("memory/", "memory.usage_in_bytes")):
        used = _read(root, folder + name)
        if used.isdigit():
            stat = dict(line.split() for line in _read(root, f"{folder}memory.stat").splitlines())
            idle = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
            return max(0, int(used) - idle)
    return 0


def _cpu_share(root: Path) -> float | None:
    """CPUs its control group may use on average; None for no limit."""
    quota, _, period = _read(root, "cpu.max").partition(" ")
    if not quota:
        quota, period = _read(root, "cpu/cpu.cfs_quota_us"), _read(root, "cpu/cpu.cfs_period_us")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return int(quota) / int(period)
    return None


def _read(root: Path, name: str) -> str:
    """A file of this process's control group; empty if there is none."""
    groups = root / "sys/fs/cgroup"
    try:
        own = (root / "proc/self/cgroup").read_text()
    except OSError:
        own = ""
    path = next((line[3:] for line in own.splitlines() if line.startswith("0::")), "/")
    for folder in (groups / path.lstrip("/"), groups):
        try:
            return (folder / name).read_text().strip()
        except OSError:
            continue
    return ""
