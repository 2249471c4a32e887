"""An aggregator under load from nodes without a model.

    python -m benchmarks.load [--json FILE] [--plot FILE.svg]

Frames are those of the embedded model, codec bf16, plan of 18 blocks; a dummy node sends them as
fast as they are taken. The dummies share this machine's cores with the aggregator, so figures are
CPU seconds of the aggregator's process, and latencies include the dummies' own work:

    relay      MB that reached receivers, for each CPU second, by frame size
    members    the same by contributors in one session
    at once    sessions open at the same time: CPU, latency of a frame from its sender to its
               receiver, memory
    memory     own pages (USS) after 100 and after 1,000 sessions
"""

import argparse
import asyncio
import json
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import matplotlib.pyplot as plt
import psutil

from benchmarks.dummies import DummyNetwork, dummy_network, frame_messages
from fedattn.cli.network import local_network

LAYERS = list(range(6, 24))
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


async def measure_sessions(
    network: DummyNetwork, meter: Meter, span_len: int, *, count: int, contributors: int
) -> dict[str, Any]:
    """Run sessions at once and say what they cost."""
    network.clock.latencies_s.clear()
    before = meter.cpu_s()
    await network.run_sessions(count, contributors, LAYERS)
    cpu_s = meter.cpu_s() - before
    relayed_mb = count * contributors * len(LAYERS) * frame_bytes(span_len) / 1e6
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


async def measure(address: str, meter: Meter) -> dict[str, Any]:
    """All figures."""
    result: dict[str, Any] = {"relay": [], "members": [], "at_once": [], "memory": []}
    for span_len in SPANS:
        async with dummy_network(address, 1, span_len) as network:
            await network.run_sessions(1, 1, LAYERS)
            rounds = max(2, int(2e8 / (frame_bytes(span_len) * len(LAYERS))))
            rows = [
                await measure_sessions(network, meter, span_len, count=4, contributors=1)
                for _ in range(min(rounds // 4 + 1, 25))
            ]
            total = {key: sum(row[key] for row in rows) for key in ("relayed_mb", "cpu_s")}
            ratio = total["relayed_mb"] / total["cpu_s"]
            result["relay"].append(rows[-1] | total | {"mb_per_cpu_s": ratio})
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
    with local_network() as network:
        aggregator = network.start_aggregator("--log-level=warning")
        meter = Meter(aggregator.process.pid)
        result = asyncio.run(measure(network.aggregator_address, meter))
        peak = psutil.Process(aggregator.process.pid).memory_info().rss / 2**20
    print("         sessions  contributors  frame KB  relayed MB  CPU s  MB/CPU s  p50 ms  p99 ms")
    for name in ("relay", "members", "at_once"):
        for row in result[name]:
            print(
                f"{name:8} {row['sessions']:8} {row['contributors']:13} {row['frame_kb']:9.1f} "
                f"{row['relayed_mb']:11.1f} {row['cpu_s']:6.2f} {row['mb_per_cpu_s'] or 0:9.0f} "
                f"{row['latency_p50_ms']:7.1f} {row['latency_p99_ms']:7.1f}"
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
