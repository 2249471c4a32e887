"""Aggregators as processes of this machine, each with its meter."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from fedattn.cli.network import free_port
from fedattn.core.address import HostPort

_FLAGS = (
    "--plaintext",
    "--log-level=warning",
    "--max-nodes=2000",
    "--max-sessions=2000",
    "--max-sessions-per-node=2000",
    "--max-sessions-per-node-per-hour=1000000",
)
_LEASE_S = 10  # pinned to one core they may be slow to say that they live
_START_S, _STOP_S = 300.0, 30.0
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
    """Those that run, and what each and all of them use; `nats` is nothing if there is but one."""

    addresses: list[str]
    meters: list[Meter]
    meter: Meter
    nats: Meter


@contextmanager
def start_aggregators(count: int, cores: set[int]) -> Iterator[Aggregators]:
    """One by itself, or several with NATS between them, pinned to the cores."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedattn-load-")))
        nats, flags = Meter(), list(_FLAGS)
        if count > 1:
            port = free_port()
            command = ["nats-server", f"--port={port}", "--addr=127.0.0.1", "--jetstream"]
            path = Path(sys.executable).parent
            pid = _run(stack, [*command, f"--store_dir={folder / 'nats'}"], cores, path)
            nats = Meter(pid)
            flags += [f"--nats=nats://127.0.0.1:{port}", f"--lease-s={_LEASE_S}"]
        addresses, pids = [], []
        for number in range(count):
            address = f"127.0.0.1:{free_port()}"
            command = [sys.executable, "-m", "services.aggregator", *flags]
            own = [f"--listen={address}", f"--state={folder / str(number)}"]
            named = [f"--name=aggregator-{number}", f"--advertise={address}"] if count > 1 else []
            pids.append(_run(stack, [*command, *own, *named], cores))
            addresses.append(address)
        for address in addresses:
            _wait_listening(HostPort.parse(address))
        yield Aggregators(addresses, [Meter(pid) for pid in pids], Meter(*pids), nats)


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


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        print(f"process {process.pid} did not end within {_STOP_S:g} s: killed", file=sys.stderr)
        process.kill()
        process.wait()


def _wait_listening(address: HostPort) -> None:
    """Until somebody takes connections there; OSError after five minutes."""
    end = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection((address.host, address.port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _run(stack: ExitStack, command: list[str], cores: set[int], path: Path | None = None) -> int:
    """Start a program that ends with the stack; its id."""
    program = command[0] if path is None else str(path / command[0])
    log = subprocess.DEVNULL if path else None
    process = subprocess.Popen([program, *command[1:]], stderr=log)  # noqa: S603 - our own
    stack.callback(_end, process)
    os.sched_setaffinity(process.pid, cores)
    return process.pid
