"""The paper's six findings on the embedded model: runs what is missing, then draws one picture.

    python -m benchmarks.findings --out DIR [--plot FILE]

Each run is a `fedattn eval`, printed before it starts, whose results stay in DIR; those that are
there are not run again. Intervals, placements and the publisher's interval come from
`python -m benchmarks.plans --json DIR/plans.json`, which is run too.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

LABELS = "labels --num-cases 60 --shots 12 --segmentation sem-ag"
RETRIEVAL = "retrieval --num-cases 30 --max-new-tokens 16 --plan all --selector random"
PARTICIPANTS = (2, 3, 4, 6)
RATIOS = (1.0, 0.7, 0.5, 0.3, 0.1)


def ratio_flags(name: str, ratios: tuple[float, ...] = RATIOS) -> str:
    return " ".join(f"--{name} {ratio:g}" for ratio in ratios)


RUNS = {
    **{
        f"n{count}": f"{LABELS} -n {count} --plan all --plan deep-half:2 --plan uniform:2 "
        "--plan uniform:4"
        for count in PARTICIPANTS
    },
    "keep_labels": f"{LABELS} -n 4 --plan all --plan uniform:2 --selector random "
    + ratio_flags("keep-ratio"),
    "input_labels": f"{LABELS} -n 4 --plan all --selector random "
    + ratio_flags("input-keep-ratio"),
    "input": f"{RETRIEVAL} {ratio_flags('input-keep-ratio', RATIOS[:-1])}",
    "keep": f"{RETRIEVAL} {ratio_flags('keep-ratio', RATIOS[:-1])}",
}


def run_missing(folder: Path) -> None:
    plans = folder / "plans.json"
    commands = {plans: ["benchmarks.plans", "--json", str(plans)]}
    for name, flags in RUNS.items():
        out = folder / f"{name}.json"
        commands[out] = ["fedattn.cli.main", "eval", *flags.split(), "--json", str(out)]
    for out, command in commands.items():
        if not out.exists():
            print("+ python -m", shlex.join(command), flush=True)
            subprocess.run([sys.executable, "-m", *command], check=True)  # noqa: S603 - our own


def read_setups(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    setups = json.loads((folder / f"{name}.json").read_text())["setups"]
    return {setup["name"]: setup for setup in setups}


def by_ratio(
    setups: dict[str, dict[str, Any]], plan: str, word: str
) -> tuple[list[float], list[dict[str, Any]]]:
    """Setups of a plan by ratio; 1 bears no word in its name."""
    found = {
        ratio: setups[name]
        for ratio in RATIOS
        if (name := plan if ratio == 1 else f"{plan} {word} {ratio:g}") in setups
    }
    return list(found), list(found.values())


def draw(folder: Path, path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - only here

    rows = json.loads((folder / "plans.json").read_text())
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    axes = figure.subplots(2, 3).flatten()

    def families(axis: Any, names: tuple[str, ...], title: str) -> None:
        for name in names:
            line = sorted(
                (row["layers"], row["nll"]) for row in rows if row["family"].startswith(name)
            )
            axis.plot(*zip(*line, strict=True), "o-", label=name)
        central = next(row["nll"] for row in rows if row["family"] == "every block")
        axis.axhline(central, linestyle="--", color="gray", label="centralised")
        axis.set(title=title, xlabel="blocks that synchronise", ylabel="answer NLL, retrieval")

    families(axes[0], ("uniform",), "1. interval")
    counts = {count: read_setups(folder, f"n{count}") for count in PARTICIPANTS}
    for plan in ("all", "deep-half:2", "uniform:2", "uniform:4"):
        line = [counts[count][plan]["exact_match"] for count in PARTICIPANTS]
        axes[1].plot(PARTICIPANTS, line, "o-", label=plan)
    axes[1].set(title="2. participants", xlabel="N", ylabel="exact match, labels")
    families(axes[2], ("shallow-half", "deep-half", "uniform", "middle"), "3. placement")
    families(axes[3], ("contributors",), "4. the publisher synchronises more often")
    panels = ((axes[4], "input", "5. input keep ratio"), (axes[5], "keep", "6. KV keep ratio"))
    for axis, word, title in panels:
        for task, name in (("retrieval", word), ("labels", f"{word}_labels")):
            setups = read_setups(folder, name)
            for plan in ("all", "uniform:2"):
                ratios, line = by_ratio(setups, plan, word)
                if line:
                    label = f"{task}, {plan}"
                    axis.plot(ratios, [setup["exact_match"] for setup in line], "o-", label=label)
        axis.set(title=title, xlabel="ratio", ylabel="exact match")
    for axis in axes:
        axis.legend(fontsize="x-small")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--plot", type=Path, help="draw all six here")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    run_missing(options.out)
    if options.plot is not None:
        draw(options.out, options.plot)


if __name__ == "__main__":
    main()
