"""An aggregator under load from nodes without a model.

    python -m benchmarks.load [--json FILE] [--plot FILE.svg]

Frames are those of the embedded model, codec bf16, plan of 18 blocks; a dummy node sends them as
fast as they are taken. The dummies share this machine's cores with the aggregator, so figures are
CPU seconds of the aggregator's process, and latencies include the dummies' own work:

    relay      MB that reached receivers, for each CPU second, by frame size; beside it the same
               messages through a gRPC server that only passes them on (benchmarks.bare_relay)
    members    the same by contributors in one session
    at once    sessions open at the same time: CPU, latency of a frame from its sender to its
               receiver, memory
    memory     own pages (USS) after 100 and after 1,000 sessions
"""

import argparse
import asyncio
import json
import subprocess
import sys
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import matplotlib.pyplot as plt
import psutil

from benchmarks.bare_relay import push_through
from benchmarks.dummies import DummyNetwork, dummy_network, frame_messages
from fedattn.cli.network import free_port, local_network

LAYERS = list(range(6, 24))
ALL_LAYERS = list(range(30))
RELAY_CONTRIBUTORS = 8
RELAY_BYTES = 250e6
SPANS = (16, 64, 256, 1024, 2048)
MEMBERS = (1, 2, 4, 8, 16, 32, 64)
AT_ONCE = (1, 10, 50, 100, 200)


class Meter:
    """CPU and memory of one process."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    def cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def own_mib(self) -> float:
        return float(self._process.memory_full_info().uss) / 2**20


def frame_bytes(span_len: int) -> int:
    """Of one frame, as messages."""
    return sum(len(message) for message in frame_messages(3, 3 + span_len, LAYERS[0]))


async def measure_sessions(  # noqa: PLR0913 - spelt out
    network: DummyNetwork,
    meter: Meter,
    span_len: int,
    *,
    count: int,
    contributors: int,
    layers: list[int] = LAYERS,
) -> dict[str, Any]:
    """Run sessions at once and say what they cost."""
    network.clock.latencies_s.clear()
    before = meter.cpu_s()
    await network.run_sessions(count, contributors, layers)
    cpu_s = meter.cpu_s() - before
    relayed_mb = count * contributors * len(layers) * frame_bytes(span_len) / 1e6
    latencies_ms = [1e3 * latency for latency in network.clock.latencies_s]
    cuts = quantiles(latencies_ms, n=100) if len(latencies_ms) > 1 else latencies_ms * 99
    return {
        "sessions": count,
        "contributors": contributors,
        "frame_kb": frame_bytes(span_len) / 1e3,
        "relayed_mb": relayed_mb,
        "cpu_s": cpu_s,
        "mb_per_cpu_s": relayed_mb / cpu_s if cpu_s else None,
        "latency_p50_ms": median(latencies_ms),
        "latency_p99_ms": cuts[98],
        "own_mib": meter.own_mib(),
    }


async def measure_relay(
    address: str, meter: Meter, span_len: int, bare_port: int, bare: Meter
) -> dict[str, Any]:
    """Long sessions, and the bare relay, in turn."""
    contributors, messages = RELAY_CONTRIBUTORS, frame_messages(3, 3 + span_len, LAYERS[0])
    per_session = contributors * len(ALL_LAYERS) * frame_bytes(span_len)
    rows, bare_mb_per_cpu_s = [], []
    async with dummy_network(address, contributors, span_len) as network:
        for number in range(1 + max(3, min(10, int(RELAY_BYTES / per_session)))):
            row = await measure_sessions(
                network, meter, span_len, count=1, contributors=contributors, layers=ALL_LAYERS
            )
            before = bare.cpu_s()
            count = contributors * len(ALL_LAYERS) * len(messages)
            await push_through(bare_port, messages[0], count)
            bare_cpu_s = max(bare.cpu_s() - before, 0.01)
            if number > 0:
                rows.append(row)
                bare_mb_per_cpu_s.append(count * len(messages[0]) / 1e6 / bare_cpu_s)
    rate = sum(row["relayed_mb"] for row in rows) / sum(row["cpu_s"] for row in rows)
    return rows[-1] | {"mb_per_cpu_s": rate, "bare_mb_per_cpu_s": median(bare_mb_per_cpu_s)}


async def measure(address: str, meter: Meter, bare_port: int, bare: Meter) -> dict[str, Any]:
    """All figures."""
    result: dict[str, Any] = {"relay": [], "members": [], "at_once": [], "memory": []}
    for span_len in SPANS:
        result["relay"].append(await measure_relay(address, meter, span_len, bare_port, bare))
    span_len = 64
    async with dummy_network(address, max(MEMBERS), span_len) as network:
        await network.run_sessions(1, 4, LAYERS)
        for contributors in MEMBERS:
            result["members"].append(
                await measure_sessions(network, meter, span_len, count=4, contributors=contributors)
            )
        for count in AT_ONCE:
            result["at_once"].append(
                await measure_sessions(network, meter, span_len, count=count, contributors=3)
            )
        for number in range(1, 51):
            await network.run_sessions(20, 3, LAYERS[:2])
            if number in {5, 25, 50}:
                result["memory"].append({"sessions": 20 * number, "own_mib": meter.own_mib()})
    return result


def plot(result: dict[str, Any], path: Path) -> None:
    """CPU seconds against bytes and against members."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for axis, name, key in ((axes[0], "at_once", "sessions"), (axes[1], "members", "contributors")):
        rows = result[name]
        axis.plot([row[key] for row in rows], [row["cpu_s"] for row in rows], marker="o")
        axis.set_xlabel(f"{key} ({'3 contributors each' if key == 'sessions' else '4 sessions'})")
        axis.set_ylabel("CPU seconds of the aggregator")
        axis.set_ylim(bottom=0)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    with local_network(plaintext=True) as network:
        aggregator = network.start_aggregator(
            "--log-level=warning", "--max-sessions=1000", "--max-sessions-per-node=1000"
        )
        meter = Meter(aggregator.process.pid)
        port = free_port()
        relay = [sys.executable, "-m", "benchmarks.bare_relay", str(port)]
        bare = subprocess.Popen(relay)  # noqa: S603 - our own module
        try:
            measuring = measure(str(network.aggregator_address), meter, port, Meter(bare.pid))
            result = asyncio.run(measuring)
        finally:
            bare.kill()
        peak = psutil.Process(aggregator.process.pid).memory_info().rss / 2**20
    print(
        "        sessions  contributors  frame KB  relayed MB  CPU s  MB/CPU s  p50 ms  p99 ms bare"
    )
    for name in ("relay", "members", "at_once"):
        for row in result[name]:
            print(
                f"{name:7} {row['sessions']:8} {row['contributors']:13} {row['frame_kb']:9.1f} "
                f"{row['relayed_mb']:11.1f} {row['cpu_s']:6.2f} {row['mb_per_cpu_s'] or 0:9.0f} "
                f"{row['latency_p50_ms']:7.1f} {row['latency_p99_ms']:7.1f}"
                + (f" {row['bare_mb_per_cpu_s']:5.0f}" if name == "relay" else "")
            )
    for row in result["memory"]:
        print(f"own pages after {row['sessions']} sessions: {row['own_mib']:.1f} MiB")
    print(f"resident at the end: {peak:.0f} MiB")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    if arguments.plot:
        plot(result, arguments.plot)


if __name__ == "__main__":
    main()
