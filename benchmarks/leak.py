"""How much of three private notes attackers recover, and what each defence costs in answers.

    python -m benchmarks.leak --json benchmarks/results/leak.json

Runs `fedattn leak` once a setting, on one thread; about half an hour. A setting that stands in the
JSON file already is not run again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.blocks import ROOT

NOTES = "benchmarks/notes"
FORMER = "--plan 1-2,5,7-8,11-12,14-15,17-18,20-24,28-29 --keep-ratio 1"
"""The blocks of the default before heads kept rows of their own, and all rows there."""
SOME = FORMER.replace("--keep-ratio 1", "--keep-ratio 0.3")
SETTINGS = {
    "default": "--attack replay --candidates 3000 --enough 0.3",
    "default, rows of 10 blocks compared": (
        "--blocks 10 --attack replay --candidates 1000 --enough 0.3"
    ),
    "18 blocks, every row": f"{FORMER} --codec entropy-fine --enough 0.3 --answers 40",
    "every block": "--plan all --attack lookup --attack repeat",
    "8 calibrated blocks, lowest 8": (
        "--plan 8,12,14,17-18,20-21,23 --attack replay --candidates 1000 --enough 0.3"
    ),
    "deep blocks only, lowest 22": (
        "--plan 22-24,28-29 --attack replay --candidates 1000 --enough 0.15 --answers 40"
    ),
    "codec entropy-coarse": (
        f"{FORMER} --codec entropy-coarse --attack replay --candidates 3000 --enough 0.3"
    ),
    "codec int4": f"{FORMER} --codec int4 --attack replay --candidates 3000 --enough 0.3",
    "30 % of the rows": (
        f"{SOME} --selector value-weighted --attack replay --candidates 3000 --enough 0.3"
    ),
    "30 % of the rows, those of 6 blocks compared": (
        f"{SOME} --selector value-weighted --blocks 6 --attack replay --candidates 1000 "
        "--enough 0.3"
    ),
    "noise 1": f"{FORMER} --noise 1 --attack replay --attack repeat --candidates 2000 --answers 40",
    "noise 2": f"{FORMER} --noise 2 --attack replay --attack repeat --candidates 2000 --answers 40",
}
"""Options of `fedattn leak` by what they stand for."""
ONE_NOTE = {
    "default, rows of 10 blocks compared",
    "8 calibrated blocks, lowest 8",
    "deep blocks only, lowest 22",
    "30 % of the rows, those of 6 blocks compared",
}
"""Settings measured on the first note alone: each candidate runs through many blocks there."""


def measure(name: str) -> dict[str, Any]:
    notes = [str(path.relative_to(ROOT)) for path in sorted((ROOT / NOTES).glob("*.txt"))]
    return attack(notes[:1] if name in ONE_NOTE else notes, SETTINGS[name])


def attack(notes: list[str], options: str) -> dict[str, Any]:
    """What `fedattn leak` makes of some notes, on one thread."""
    command = [sys.executable, "-m", "fedattn.cli.main", "leak", *notes, *options.split()]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "leak.json"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        whole = [*command, f"--json={out}"]
        subprocess.run(whole, cwd=ROOT, env=environment, check=True)  # noqa: S603 - our own
        return json.loads(out.read_text())  # type: ignore[no-any-return]


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Results so far, by name of the setting, in the order of SETTINGS."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return {name: found[name] for name in SETTINGS if name in found}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown, a row a setting."""
    titles = ("setting", "replay", "gap", "repeat", "right answers", "options")
    lines = [titles, ("---",) * len(titles)]
    lines += [_cells(name, result) for name, result in results.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(name: str, result: dict[str, Any]) -> tuple[str, ...]:
    attacks = {attack["attack"]: attack for attack in result["attacks"]}
    replay = attacks.get("lookup") or attacks["replay"]
    repeat, answers = attacks.get("repeat"), result["answers"]
    return (
        f"{name} (diagnosis only)" if name in ONE_NOTE else name,
        f"{replay['found']:.0%}" + (" (look-up)" if "lookup" in attacks else ""),
        f"{replay['median_gap']:.2f}",
        f"{repeat['found']:.0%}" if repeat else "",
        f"{answers['num_right']} of {answers['num_cases']}" if answers else "",
        f"`{SETTINGS[name]}`",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("settings", nargs="*", choices=[*SETTINGS, []], help="default: all")
    given = parser.parse_args()
    for name in given.settings or SETTINGS:
        if name not in read_results(given.json):
            print(f"{name}: fedattn leak {SETTINGS[name]}", flush=True)
            measured = measure(name)
            results = {**read_results(given.json), name: measured}  # another run may have written
            ordered = {key: results[key] for key in SETTINGS if key in results}
            given.json.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()
