"""The picture of `benchmarks.concurrency`."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt


def plot(result: dict[str, Any], path: Path) -> None:
    """Tokens a second, time to first token and between tokens against the number of questions."""
    rows: dict[Any, Any] = result["at_once"]
    counts = [int(count) for count in rows]
    figure, (rate, first, gap) = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
    for way in next(iter(rows.values())):
        of_way = [row[way] for row in rows.values()]
        rate.plot(counts, [row["decode_tokens_per_s"] for row in of_way], marker="o", label=way)
        for axis, name in ((first, "first_token_ms"), (gap, "between_tokens_ms")):
            (line,) = axis.plot(counts, [row[name]["p50"] for row in of_way], marker="o")
            high = [row[name]["p95"] for row in of_way]
            axis.plot(counts, high, marker="^", linestyle="--", color=line.get_color())
    for axis, label in (
        (rate, "tokens a second of all, decoding"),
        (first, "ms to the first token: p50, dashed p95"),
        (gap, "ms between tokens: p50, dashed p95"),
    ):
        axis.set_xlabel("questions at once")
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
    rate.legend()
    figure.savefig(path, metadata={"Date": None})
