"""Aggregators as processes of this machine, each with its meter."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from fedattn.cli.network import free_port

_FLAGS = (
    "--plaintext",
    "--log-level=warning",
    "--max-nodes=2000",
    "--max-sessions=2000",
    "--max-sessions-per-node=2000",
    "--max-sessions-per-node-per-hour=1000000",
)
_MIB = 2**20


class Meter:
    """CPU (`utime` and `stime` of /proc/PID/stat) and memory of some processes together."""

    def __init__(self, *pids: int) -> None:
        self._processes = [psutil.Process(pid) for pid in pids]

    def cpu_s(self) -> float:
        """Spent so far."""
        times = [process.cpu_times() for process in self._processes]
        return float(sum(one.user + one.system for one in times))

    def resident_mib(self) -> float:
        """Of all of them."""
        return float(sum(process.memory_info().rss for process in self._processes)) / _MIB


@dataclass(frozen=True, slots=True)
class Aggregators:
    """Those that run, and what they use together."""

    addresses: list[str]
    meters: list[Meter]
    meter: Meter


@contextmanager
def start_aggregators(count: int, cores: set[int]) -> Iterator[Aggregators]:
    """Run so many, each by itself, pinned to the cores."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedattn-load-")))
        addresses, pids = [], []
        for number in range(count):
            addresses.append(f"127.0.0.1:{free_port()}")
            pids.append(_start(stack, addresses[-1], folder / str(number), cores))
        yield Aggregators(addresses, [Meter(pid) for pid in pids], Meter(*pids))


@contextmanager
def start_bare_relay(port: int, cores: set[int]) -> Iterator[Meter]:
    """A server that only passes messages on, pinned as aggregators are."""
    command = [sys.executable, "-m", "benchmarks.bare_relay", str(port)]
    with subprocess.Popen(command) as process:  # noqa: S603 - our own module
        os.sched_setaffinity(process.pid, cores)
        try:
            yield Meter(process.pid)
        finally:
            process.kill()


def _start(stack: ExitStack, address: str, state: Path, cores: set[int]) -> int:
    command = [sys.executable, "-m", "services.aggregator", f"--listen={address}"]
    process = subprocess.Popen([*command, f"--state={state}", *_FLAGS])  # noqa: S603 - our own module
    stack.callback(process.wait)
    stack.callback(process.terminate)
    os.sched_setaffinity(process.pid, cores)
    return process.pid
