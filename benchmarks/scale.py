"""How many aggregators a federation of up to 100,000 nodes takes, by what one was measured to need.

    python -m benchmarks.scale [--questions-per-hour 6] [--seed 1]

Rewrites the table of docs/scale.md. CPU seconds come from benchmarks/results/load.json. Questions
come as a Poisson process, and rendezvous hashing spreads them evenly and at random. So many
aggregators are taken that none of them is busy for more than a share of any second, but one second
in a hundred.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.blocks import ROOT, with_block, write_documents

DOCUMENT = ROOT / "docs" / "scale.md"
RESULTS = ROOT / "benchmarks" / "results" / "load.json"
SIZES = (100, 1_000, 10_000, 100_000)
SITE_NODES = 1_000
CONTRIBUTORS = 8
LAYERS = 18
FRAME_BYTES = 49_202  # 64 tokens of the embedded model, bf16
SESSION_S = 5
LISTS = 2  # that a question asks for: who publishes, and whom to tell of the question
BUSY = 0.6
SECONDS = 200
SAMPLED = 64  # aggregators that are played through: they are all alike
MAX_AGGREGATORS = 1 << 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """CPU seconds of an aggregator, and KiB of its memory.

    Attributes:
        frame_s: of a frame, whatever its size.
        byte_s: of a byte of it.
        member_s: of one member of a session, opening to report.
        node_s: of a node that is joined here, each second.
        copy_s: of a node that is joined elsewhere, each second.
        list_s: of a node in a list of all.
        node_kib: a node, wherever it is joined.
    """

    frame_s: float
    byte_s: float
    member_s: float
    node_s: float
    copy_s: float
    list_s: float
    node_kib: float

    @classmethod
    def of(cls, load: dict[str, Any]) -> "Costs":
        """From the results of `benchmarks.load`."""
        frame_s, byte_s = _fit(
            [(row["frames"], row["relayed_mb"] * 1e6, row["cpu_s"]) for row in load["relay"]]
        )
        quiet = load["rates"][0]
        frames = frame_s * quiet["frames"] + byte_s * quiet["relayed_mb"] * 1e6
        members = quiet["opened"] * (1 + quiet["contributors"])
        node_s, copy_s = _fit(
            [
                (1.0, row["aggregators"] - 1.0, row["idle_cpu_us_per_node_s"] / 1e6)
                for row in load["joined"]
            ]
        )
        return cls(
            frame_s=frame_s,
            byte_s=byte_s,
            member_s=max(0.0, quiet["cpu_s"] - frames) / members,
            node_s=node_s,
            copy_s=copy_s,
            list_s=load["joined"][0]["list_cpu_us_per_node"] / 1e6,
            node_kib=load["joined"][0]["kib_per_node"],
        )

    @property
    def session_s(self) -> float:
        """Of one session."""
        frames = CONTRIBUTORS * LAYERS
        rows_s = frames * (self.frame_s + FRAME_BYTES * self.byte_s)
        return rows_s + (1 + CONTRIBUTORS) * self.member_s

    def standing(self, nodes: int, aggregators: int) -> float:
        """Share of a core that one of them spends on nodes that do nothing."""
        home = nodes / aggregators
        return home * self.node_s + (nodes - home) * self.copy_s


def _fit(rows: list[tuple[float, float, float]]) -> tuple[float, float]:
    """Non-negative a, b for which a * x + b * y is closest to z, relative to it."""
    table = np.array(rows)
    scaled = table / table[:, 2:]
    best = np.linalg.lstsq(scaled[:, :2], scaled[:, 2], rcond=None)[0]
    a, b = (max(0.0, float(value)) for value in best)
    return a, b


def busy_shares(
    random: np.random.Generator, rate_per_s: float, aggregators: int, demand_s: float
) -> NDArray[np.float64]:
    """Share of a core that some aggregators spend on sessions in each second, [aggregators, T]."""
    size = (min(aggregators, SAMPLED), SECONDS + SESSION_S - 1)
    begun = random.poisson(rate_per_s / aggregators, size)
    running = np.lib.stride_tricks.sliding_window_view(begun, SESSION_S, axis=1).sum(axis=2)
    return np.asarray(running * demand_s / SESSION_S, dtype=np.float64)


def aggregators_for(costs: Costs, nodes: int, rate_per_s: float, seed: int) -> int | None:
    """The fewest that are seldom too busy; None if no number is enough."""
    demand_s = costs.session_s + LISTS * nodes * costs.list_s

    def is_enough(count: int) -> bool:
        shares = busy_shares(np.random.default_rng(seed), rate_per_s, count, demand_s)
        return costs.standing(nodes, count) + float(np.percentile(shares, 99)) <= BUSY

    high = 1
    while not is_enough(high):
        high *= 2
        if high > MAX_AGGREGATORS:
            return None
    low = high // 2 + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return high


def rows(costs: Costs, questions_per_hour: float, seed: int) -> list[str]:
    """One line of the table for each size."""
    lines = []
    for nodes in SIZES:
        rate = nodes * questions_per_hour / 3600
        flat = aggregators_for(costs, nodes, rate, seed)
        sites = max(1, nodes // SITE_NODES)
        of_site = aggregators_for(costs, nodes // sites, rate / sites, seed)
        relayed_mb = rate * CONTRIBUTORS * LAYERS * FRAME_BYTES / 1e6
        lists = LISTS * nodes * costs.list_s / (LISTS * nodes * costs.list_s + costs.session_s)
        lines.append(
            f"| {nodes:,} | {rate:.2g} | {relayed_mb:,.0f} | {flat or 'none is enough'} | "
            f"{lists:.0%} | {nodes * costs.node_kib / 1024:,.0f} | {sites:,} | "
            f"{'none is enough' if of_site is None else f'{sites * of_site:,}'} |"
        )
    return lines


def table(load: dict[str, Any], questions_per_hour: float = 6.0, seed: int = 1) -> str:
    """Markdown of what was measured and what follows."""
    costs = Costs.of(load)
    measured = (
        f"Measured, CPU of one aggregator: {costs.frame_s * 1e6:.0f} µs a frame and "
        f"{costs.byte_s * 1e9:.1f} ms a MB of it, {costs.member_s * 1e3:.1f} ms a member of a "
        f"session, {costs.node_s * 1e6:.0f} µs a second for a node that is joined there and "
        f"{costs.copy_s * 1e6:.0f} µs for one that is joined elsewhere, {costs.list_s * 1e6:.0f} "
        f"µs for a node in a list; {costs.node_kib:.0f} KiB a node. A session of {CONTRIBUTORS} "
        f"contributors: {costs.session_s * 1e3:.0f} ms."
    )
    head = [
        "| nodes | questions/s | MB/s | aggregators, all in one | of a question's CPU: lists | "
        "MiB of nodes in each | sites | aggregators, by sites |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([measured, "", *head, *rows(costs, questions_per_hour, seed)])


def documents(results: Path = RESULTS) -> dict[Path, str]:
    """The page with its table, as it should be."""
    content = table(json.loads(results.read_text()))
    return {DOCUMENT: with_block(DOCUMENT.read_text(), "scale", content)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--questions-per-hour", type=float, default=6.0, help="of each node")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    load = json.loads(RESULTS.read_text())
    print(table(load, options.questions_per_hour, options.seed))
    write_documents(documents())


if __name__ == "__main__":
    main()
