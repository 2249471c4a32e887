"""The picture of `benchmarks.load`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt


def plot(result: dict[str, Any], path: Path) -> None:
    """Latency and CPU against the rate by number of aggregators, and memory over sessions."""
    figure, (latency, cpu, memory) = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
    for count, rows in _by_aggregators(result.get("rates", [])):
        rates = [row["rate_per_s"] for row in rows]
        name = f"{count} aggregator{'s' if count > 1 else ''}"
        (line,) = latency.plot(rates, [row["frame_p50_ms"] for row in rows], marker="o", label=name)
        high = [row["frame_p99_ms"] for row in rows]
        latency.plot(rates, high, marker="^", linestyle="--", color=line.get_color())
        cpu.plot(rates, [row["cpu_ms_per_session"] for row in rows], marker="o", label=name)
    for axis, label in (
        (latency, "ms from due to received: p50, dashed p99"),
        (cpu, "CPU ms of the aggregators a session"),
    ):
        axis.set_xlabel("sessions begun a second")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
    latency.set_yscale("log")
    cpu.legend()
    row_of = result.get("in_a_row", [])
    memory.plot(
        [row["sessions"] for row in row_of], [row["resident_mib"] for row in row_of], marker="o"
    )
    memory.set_xlabel("sessions in a row")
    memory.set_ylabel("MiB resident in an aggregator")
    memory.set_ylim(bottom=0)
    figure.savefig(path, metadata={"Date": None})


def _by_aggregators(rows: list[dict[str, Any]]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    for count in dict.fromkeys(row["aggregators"] for row in rows):
        yield count, [row for row in rows if row["aggregators"] == count]
