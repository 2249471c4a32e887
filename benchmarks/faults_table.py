"""The table of docs/faults.md, from a run of the faults: `python -m benchmarks.faults_table`.

Reads benchmarks/results/chaos.json, as `python -m tests.chaos --json` writes it, and
benchmarks/results/failover.json, as `python -m tests.chaos.failover --json` does.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.blocks import ROOT, with_block, write_documents

DOCUMENT = ROOT / "docs" / "faults.md"
_RESULTS = ROOT / "benchmarks" / "results"
_PHASES = ("idle", "opening", "exchange", "decoding")
_ONE_OF_SEVERAL = re.compile(r"aggregator-\d+")
_FROZEN = "60 to 79 s, error 504 that names nobody"
_BEFORE = {
    ("freeze an aggregator", "serves the session"): _FROZEN,
    ("freeze an aggregator", "holds the publisher"): _FROZEN,
    ("freeze office", ""): _FROZEN,
    ("kill clinic", "idle"): "an answer that is silent about clinic",
    ("kill an aggregator", "idle"): "there was one only: nobody could ask",
}
"""What was seen before keepalive, departures and federations (docs/adr/0038, 0039, 0041), by the
fault and the place that was struck, or the phase."""

Cells = dict[tuple[str, str, str], list[dict[str, Any]]]


def by_fault(cells: list[dict[str, Any]]) -> Cells:
    """Cells that differ in nothing but which aggregator they struck, in the order of the table."""
    found: Cells = defaultdict(list)
    for cell in cells:
        fault = _ONE_OF_SEVERAL.sub("an aggregator", cell["fault"])
        found[fault, cell["place"], cell["phase"]].append(cell)
    return dict(sorted(found.items(), key=lambda one: (*one[0][:2], _PHASES.index(one[0][2]))))


def rows(cells: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each fault, place and phase."""
    for (fault, place, phase), same in by_fault(cells).items():
        before = _before(fault, place, phase)
        saw = "; ".join(dict.fromkeys(map(_saw, same)))
        asked = _seconds([cell["seconds"] for cell in same])
        back = _seconds([cell["back_s"] for cell in same])
        what = f"{fault} (it {place})" if place else fault
        yield f"| {what} | {phase} | {len(same)} | {before} | {saw} | {asked} | {back} |"


def _saw(cell: dict[str, Any]) -> str:
    return f"{cell['saw']} (wrong)" if cell["problems"] else str(cell["saw"])


def _before(fault: str, place: str, phase: str) -> str:
    where = {phase, *(place.split(" and ") if place else [""])}
    return next((told for key, told in _BEFORE.items() if key[0] == fault and key[1] in where), "")


def _seconds(all_s: list[float]) -> str:
    if len(all_s) == 1:
        return f"{all_s[0]:.1f}"
    return f"{median(all_s):.1f} ({min(all_s):.1f} to {max(all_s):.1f})"


def table(run: dict[str, Any]) -> str:
    """Markdown of a run."""
    cells = run["cells"]
    wrong = sum(bool(cell["problems"]) for cell in cells)
    heard_s = max(cell["seconds"] for cell in cells if cell["fault"] != "freeze gateway")
    back_s = max(cell["back_s"] for cell in cells)
    return "\n".join(
        [
            f"{len(cells)} faults, seed {run['seed']}, {run['aggregators']} aggregators; "
            f"{wrong} with something wrong. The client heard within {heard_s:.1f} s, but of a "
            f"frozen gateway, which says nothing until it goes on; the next query was whole after "
            f"{back_s:.1f} s at most.",
            "",
            "| fault | phase | times | before | what the client saw | after s | next whole s |",
            "|---|---|---|---|---|---|---|",
            *rows(cells),
        ]
    )


def failover(deaths: list[dict[str, Any]]) -> str:
    """Markdown of deaths of aggregators."""
    errors = sum(len(one["errors"]) for one in deaths)
    named = {
        "a query right before": "calm_s",
        "the first that was answered, from the death": "answered_s",
        "the first that all nodes answered, from the death": "whole_s",
    }
    lines = [
        f"| {what} | {median(all_s):.1f} | {min(all_s):.1f} | {max(all_s):.1f} |"
        for what, all_s in ((what, [one[key] for one in deaths]) for what, key in named.items())
    ]
    return "\n".join(
        [
            f"{len(deaths)} deaths; {errors} queries failed before the first that was answered.",
            "",
            "| query | median s | least | most |",
            "|---|---|---|---|",
            *lines,
        ]
    )


def read(name: str) -> Any:
    return json.loads((_RESULTS / f"{name}.json").read_text())


def documents() -> dict[Path, str]:
    """The document with this table, as it should be."""
    text = with_block(DOCUMENT.read_text(), "faults", table(read("chaos")))
    return {DOCUMENT: with_block(text, "failover", failover(read("failover")))}


if __name__ == "__main__":
    write_documents(documents())
