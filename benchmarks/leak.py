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
SETTINGS = {
    "default plan and codec": "--enough 0.3",
    "deep blocks only, lowest 22": "--plan 22-29 --candidates 3000 --enough 0.2",
    "noise 1": "--noise 1 --candidates 3000",
    "30 % of the rows": "--keep-ratio 0.3 --candidates 3000 --enough 0.3",
    "every block": "--plan all --enough 0.3",
    "8 calibrated blocks, lowest 8": "--plan auto@8 --candidates 3000 --enough 0.3",
    "noise 2": "--noise 2 --candidates 3000",
    "deep blocks only, lowest 15": "--plan 15-24,28-29 --candidates 3000 --enough 0.3",
    "noise 0.5": "--noise 0.5 --candidates 3000",
    "codec entropy-coarse": "--codec entropy-coarse --candidates 3000 --enough 0.3",
    "codec int4": "--codec int4 --candidates 3000 --enough 0.3",
}
ATTACKS = {
    "default plan and codec": "",
    "every block": " --attack lookup --attack replay --attack repeat",
}
NUM_CASES = 40


def flags(name: str) -> str:
    """Options of `fedattn leak` for a setting."""
    attacks = ATTACKS.get(name, " --attack replay --attack repeat")
    return f"{SETTINGS[name]}{attacks} --num-cases {NUM_CASES}"


def measure(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "leak.json"
        notes = [str(path.relative_to(ROOT)) for path in sorted((ROOT / NOTES).glob("*.txt"))]
        command = [sys.executable, "-m", "fedattn.cli.main", "leak", *notes, *flags(name).split()]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*command, f"--json={out}"], cwd=ROOT, env=environment, check=True)
        return {"name": name, "flags": flags(name), **json.loads(out.read_text())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    path = parser.parse_args().json
    done = {row["name"]: row for row in json.loads(path.read_text())} if path.exists() else {}
    for name in SETTINGS:
        if name not in done:
            print(f"{name}: fedattn leak {flags(name)}", flush=True)
            done[name] = measure(name)
            path.write_text(json.dumps(list(done.values()), indent=1) + "\n")


if __name__ == "__main__":
    main()
