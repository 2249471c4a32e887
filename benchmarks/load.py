"""Aggregators under scheduled load from nodes without a model.

    python -m benchmarks.load [--aggregators 1 2 4] [--parts rates ...] [--json FILE] [--plot SVG]

Frames are those of the embedded model, codec bf16, plan of 18 blocks, plaintext. Aggregators share
the cores of --cores with NATS, if there are several; the dummies have the others. CPU is that of
the aggregators.

    relay      MB that reached receivers, for each CPU second, by frame size; beside it the same
               messages through a gRPC server that only passes them on (benchmarks.bare_relay)
    rates      sessions that begin at so many a second: latency of openings and frames from the time
               at which they were due, CPU seconds a session, MB a CPU second
    at_once    the same, with sessions so long that --at-once of them are open together
    joined     --nodes nodes that do nothing: CPU and memory of each, and of a list of them; then
               sessions among them
    in_a_row   resident memory over --in-a-row short sessions
"""

import argparse
import asyncio
import json
import os
import resource
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.aggregators import (
    Aggregators,
    Meter,
    start_aggregators,
    start_bare_relay,
)
from benchmarks.bare_relay import push_through
from benchmarks.dummies import DummyNode, Pace, dummy_nodes, frame_bytes, frame_messages
from benchmarks.load_plot import plot
from benchmarks.open_loop import Arrivals, run_load, summary
from fedattn.cli.network import free_port
from fedattn.wire.stubs import AggregatorStub
from fedattn.wire.v1 import aggregator_pb2 as pb

LAYERS = tuple(range(6, 24))
ALL_LAYERS = tuple(range(30))
SPAN = 64
SPANS = (16, 64, 256, 1024, 2048)
RELAY_CONTRIBUTORS = 8
RELAY_BYTES = 250e6
NODES = 48  # where their number is not the question
PACE = Pace(contributors=3, layers=LAYERS, lead_s=0.25, frame_interval_s=0.05)
LISTS = 50
SHORT = Pace(contributors=3, layers=LAYERS[:2])

Nodes = list[DummyNode]
Rows = list[dict[str, Any]]


async def measured(
    aggregators: Aggregators, nodes: Nodes, arrivals: Arrivals, pace: Pace, span_len: int = SPAN
) -> dict[str, Any]:
    """Hold a schedule and say what it cost."""
    before = [meter.cpu_s() for meter in aggregators.meters]
    nats_before = aggregators.nats.cpu_s()
    begin = time.monotonic()
    row = summary(await run_load(nodes, arrivals, pace), span_len)
    wall_s = time.monotonic() - begin
    each = [meter.cpu_s() - was for meter, was in zip(aggregators.meters, before, strict=True)]
    cpu_s = sum(each)
    return {
        "aggregators": len(each),
        "rate_per_s": arrivals.rate_per_s,
        "sessions": arrivals.count,
        **row,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "nats_cpu_s": aggregators.nats.cpu_s() - nats_before,
        "busiest_share": max(each) / cpu_s if cpu_s else None,
        "cpu_ms_per_session": 1e3 * cpu_s / arrivals.count,
        "mb_per_cpu_s": row["relayed_mb"] / cpu_s if cpu_s else None,
        "resident_mib": aggregators.meter.resident_mib() / len(each),
    }


async def measure_relay(aggregators: Aggregators, options: argparse.Namespace) -> Rows:
    """Long sessions, and the bare relay, in turn, by frame size."""
    port = free_port()
    with start_bare_relay(port, options.cores) as bare:
        return [await _relay_row(aggregators, span, port, bare) for span in SPANS]


async def _relay_row(
    aggregators: Aggregators, span_len: int, port: int, bare: Meter
) -> dict[str, Any]:
    message, *rest = frame_messages(3, 3 + span_len, LAYERS[0], 0)
    pace = Pace(contributors=RELAY_CONTRIBUTORS, layers=ALL_LAYERS)
    frames = pace.contributors * len(pace.layers)
    count = max(3, min(10, int(RELAY_BYTES / frames / frame_bytes(span_len))))
    async with dummy_nodes(aggregators.addresses, RELAY_CONTRIBUTORS + 1, span_len) as nodes:
        await run_load(nodes, Arrivals(count=1, rate_per_s=None), pace)
        arrivals = Arrivals(count=count, rate_per_s=None)
        row = await measured(aggregators, nodes, arrivals, pace, span_len)
    rates = []
    for _ in range(3):
        before, messages = bare.cpu_s(), frames * (1 + len(rest))
        await push_through(port, message, messages)
        rates.append(messages * len(message) / 1e6 / max(bare.cpu_s() - before, 0.01))
    return row | {"bare_mb_per_cpu_s": median(rates)}


async def measure_rates(aggregators: Aggregators, options: argparse.Namespace) -> Rows:
    """Sessions at each rate."""
    rows = []
    async with dummy_nodes(aggregators.addresses, NODES, SPAN) as nodes:
        await run_load(nodes, Arrivals(count=5, rate_per_s=None), SHORT)
        for rate in options.rates:
            count = max(10, int(rate * options.seconds))
            arrivals = Arrivals(count=count, rate_per_s=rate)
            rows.append(await measured(aggregators, nodes, arrivals, PACE))
    return rows


async def measure_at_once(aggregators: Aggregators, options: argparse.Namespace) -> Rows:
    """Sessions so long that many are open together; they come for half as long again."""
    rate = options.at_once_rate
    length_s = options.at_once / rate
    interval_s = (length_s - PACE.lead_s) / (len(LAYERS) - 1)
    pace = Pace(contributors=3, layers=LAYERS, lead_s=PACE.lead_s, frame_interval_s=interval_s)
    async with dummy_nodes(aggregators.addresses, NODES, SPAN) as nodes:
        arrivals = Arrivals(count=int(1.5 * options.at_once), rate_per_s=rate)
        return [await measured(aggregators, nodes, arrivals, pace)]


async def measure_joined(aggregators: Aggregators, options: argparse.Namespace) -> Rows:
    """Nodes that are only there, then sessions among them."""
    empty_mib, before = aggregators.meter.resident_mib(), aggregators.meter.cpu_s()
    async with dummy_nodes(aggregators.addresses, options.nodes, SPAN) as nodes:
        after = aggregators.meter.cpu_s()
        await asyncio.sleep(options.seconds)
        idle_cpu_s = aggregators.meter.cpu_s() - after
        count = len(nodes)
        grown_mib = aggregators.meter.resident_mib() - empty_mib
        idle = {
            "nodes": count,
            "join_cpu_ms": 1e3 * (after - before) / count,
            "idle_cpu_us_per_node_s": 1e6 * idle_cpu_s / count / options.seconds,
            "kib_per_node": 1024 * grown_mib / count / len(aggregators.addresses),
            **await _measure_list(aggregators, nodes[0]),
        }
        rate = options.rates[0]
        arrivals = Arrivals(count=max(10, int(rate * options.seconds)), rate_per_s=rate)
        return [idle | await measured(aggregators, nodes, arrivals, PACE)]


async def _measure_list(aggregators: Aggregators, node: DummyNode) -> dict[str, float]:
    """What it takes to tell who is there."""
    stub, before, listed = AggregatorStub(node.channel()), aggregators.meter.cpu_s(), 0
    for _ in range(LISTS):
        response = await stub.ListNodes(pb.ListNodesRequest())
        listed += len(response.nodes)
    cpu_s = aggregators.meter.cpu_s() - before
    return {
        "list_cpu_us_per_node": 1e6 * cpu_s / listed,
        "list_bytes_per_node": response.ByteSize() / len(response.nodes),
    }


async def measure_in_a_row(aggregators: Aggregators, options: argparse.Namespace) -> Rows:
    """Resident memory after each tenth."""
    rows: Rows = []
    part = Arrivals(count=max(1, options.in_a_row // 10), rate_per_s=None)
    async with dummy_nodes(aggregators.addresses, NODES, SPAN) as nodes:
        for number in range(1, 11):
            row = await measured(aggregators, nodes, part, SHORT)
            rows.append(row | {"sessions": number * part.count})
    return rows


PARTS: dict[str, Callable[[Aggregators, argparse.Namespace], Coroutine[Any, Any, Rows]]] = {
    "relay": measure_relay,
    "rates": measure_rates,
    "at_once": measure_at_once,
    "joined": measure_joined,
    "in_a_row": measure_in_a_row,
}
_BY_NUMBER = ("rates", "at_once", "joined")  # parts that several aggregators change


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures that were asked for, written after each part; aggregators are new for each."""
    result: dict[str, Any] = {}
    for part in options.parts:
        result[part] = []
        for count in options.aggregators if part in _BY_NUMBER else [1]:
            with start_aggregators(count, options.cores) as aggregators:
                rows = asyncio.run(PARTS[part](aggregators, options))
            for row in rows:
                print(describe(part, row), flush=True)
            result[part] += rows
        if options.json:
            options.json.write_text(json.dumps(result, indent=2) + "\n")
    return result


def describe(part: str, row: dict[str, Any]) -> str:
    """One line."""
    rate = "in a row" if row["rate_per_s"] is None else f"{row['rate_per_s']:g}/s"
    bare = f" (bare {row['bare_mb_per_cpu_s']:.0f})" if "bare_mb_per_cpu_s" in row else ""
    nodes = (
        f"; {row['nodes']} nodes: join {row['join_cpu_ms']:.2f} ms, idle "
        f"{row['idle_cpu_us_per_node_s']:.0f} us/s, {row['kib_per_node']:.0f} KiB each, listed "
        f"with {row['list_bytes_per_node']:.0f} bytes in {row['list_cpu_us_per_node']:.0f} us"
        if "nodes" in row
        else ""
    )
    return (
        f"{part:8} {row['aggregators']} aggregators, {row['sessions']} sessions {rate}, at most "
        f"{row['most_open']} open, failures {row['failures']}: {row['frame_kb']:.1f} KB frames, "
        f"opening {row['opening_p50_ms']:.0f}/{row['opening_p99_ms']:.0f} ms, frame "
        f"{row['frame_p50_ms']:.0f}/{row['frame_p99_ms']:.0f} ms, "
        f"{row['cpu_ms_per_session']:.1f} CPU ms a session (NATS "
        f"{1e3 * row['nats_cpu_s'] / row['sessions']:.1f}), {row['mb_per_cpu_s']:.0f} MB/CPU s"
        f"{bare}, resident {row['resident_mib']:.1f} MiB{nodes}"
    )


def read_options() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--aggregators", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--rates", nargs="+", type=float, default=[1, 2, 5, 10, 20])
    parser.add_argument("--seconds", type=float, default=30.0, help="of each rate")
    parser.add_argument("--at-once", type=int, default=500)
    parser.add_argument("--at-once-rate", type=float, default=10.0, help="sessions a second")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--in-a-row", type=int, default=10_000)
    half = max(1, (os.cpu_count() or 1) // 2)
    cores = list(range(half))
    parser.add_argument("--cores", nargs="+", type=int, default=cores, help="of the aggregators")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    options.cores = set(options.cores)
    return options


def main() -> None:
    options = read_options()
    others = os.sched_getaffinity(0) - options.cores
    if others:
        os.sched_setaffinity(0, others)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 1 << 16), most))
    result = measure(options)
    if options.plot:
        plot(result, options.plot)


if __name__ == "__main__":
    main()
