"""How well withheld rows protect a code of four digits in five notes.

    python -m benchmarks.withheld --json benchmarks/results/withheld.json

Runs `fedattn leak --attack withheld` once a setting, on one thread; about ten minutes of an idle
core. A setting that stands in the JSON file already is not run again.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import leak
from benchmarks.blocks import ROOT

NOTES = "benchmarks/notes/withheld"
FOUR, THREE = r"--withheld \d{4}", r"--withheld (?<=\d)\d{3}"
SETTINGS = {
    "fp32": f"{FOUR} --blocks 2 --rows 8 --codec fp32",
    "bf16": f"{FOUR} --blocks 2 --rows 8 --codec bf16",
    "default codec, entropy-fine": f"{FOUR} --blocks 2 --rows 8",
    "entropy-coarse": f"{FOUR} --blocks 2 --rows 8 --codec entropy-coarse",
    "int4": f"{FOUR} --blocks 2 --rows 8 --codec int4",
    "default codec, nearest row of block 1 alone": f"{FOUR} --rows 1",
    "default codec, deep blocks only, three digits": f"{THREE} --plan 22-24,28-29",
}
"""Options of `fedattn leak --attack withheld` by what they stand for."""


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Results so far, by name of the setting, in the order of SETTINGS."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return {name: found[name] for name in SETTINGS if name in found}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown, a row a setting."""
    titles = (
        "rows travel as", "candidates", "found", "among the first 10", "median rank",
        "median rank by distance", "options",
    )  # fmt: skip
    lines = [titles, ("---",) * len(titles)]
    lines += [_cells(name, result) for name, result in results.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(name: str, result: dict[str, Any]) -> tuple[str, ...]:
    (summary,) = result["attacks"]
    ranks, by_distance = summary["ranks"], summary["ranks_by_distance"]
    (guess,) = result["texts"][0]["outcomes"][0]["guesses"]
    return (
        name,
        f"{guess['candidates']:,}",
        f"{sum(rank == 1 for rank in ranks)} of {len(ranks)}",
        f"{sum(rank <= 10 for rank in ranks)} of {len(ranks)}",
        f"{median(ranks):,.0f}",
        f"{median(by_distance):,.0f}",
        f"`{SETTINGS[name]}`",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("settings", nargs="*", choices=[*SETTINGS, []], help="default: all")
    given = parser.parse_args()
    notes = [str(path.relative_to(ROOT)) for path in sorted((ROOT / NOTES).glob("*.txt"))]
    for name in given.settings or SETTINGS:
        if name not in read_results(given.json):
            print(f"{name}: fedattn leak --attack withheld {SETTINGS[name]}", flush=True)
            measured = leak.attack(notes, f"--attack withheld {SETTINGS[name]}")
            results = {**read_results(given.json), name: measured}  # another run may have written
            ordered = {key: results[key] for key in SETTINGS if key in results}
            given.json.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()
