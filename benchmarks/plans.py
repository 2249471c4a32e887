"""Sync plans on the embedded model: exact match, NLL and KL against the number of sync layers.

    python -m benchmarks.plans [--cases 60] [--profile FILE.json] [--json FILE] [--plot FILE]
    python -m benchmarks.plans --searches [--layers 10] [--json FILE]

The first measures every schedule and the profile's plans on generated cases that no search has
seen, float32, without codec. The second runs every search strategy on the same cases, from the same
start, and says what each found on held-out cases, how long it took, and how many fewer tokens went
through blocks than in a search that runs every prompt from the start for every plan.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from fedattn.core.errors import InvalidPlanError
from fedattn.core.plans import PlanSpec, RolePlans, shared_plan
from fedattn.core.profile import Profile
from fedattn.core.schedules import SCHEDULES
from fedattn.model.engine import open_engine
from fedattn.model.loading import fastest_dtype
from fedattn.profiles import load_profile, shipped_profile
from fedattn.research.calibrate.evaluator import PlanEvaluator
from fedattn.research.calibrate.meter import PlanMeter
from fedattn.research.calibrate.run import centralised_prompts, mixed_cases
from fedattn.research.calibrate.search import STRATEGIES
from fedattn.research.prompts import tokenize_case
from fedattn.research.tasks.cases import is_right

SIZES = (5, 8, 10, 15, 20)
CONTRIBUTORS, PUBLISHERS = "uniform:6", ("uniform:3", "uniform:2", "all")
CASES_SEED = 2_000_003
SEARCH_SEED = 3_000_009
ANSWER_TOKENS = 20


def grid(num_layers: int, profile: Profile | None) -> Iterator[tuple[str, RolePlans]]:
    """Family and plans of every row."""
    yield "every block", shared_plan(range(num_layers))
    yield "every block but 0", shared_plan(range(1, num_layers))
    yield "none", shared_plan(())
    yield (
        "publisher everywhere, contributors nowhere",
        RolePlans(
            contributors=shared_plan(()).publisher,
            publisher=shared_plan(range(num_layers)).publisher,
        ),
    )
    for point in profile.points if profile else ():
        yield "calibrated", point.plans
    for name in SCHEDULES:
        for size in SIZES:
            try:
                plan = PlanSpec(f"{name}@{size}").resolve(num_layers)
            except InvalidPlanError:
                continue  # that schedule has no such size
            yield name, shared_plan(plan.layers)
    contributors = PlanSpec(CONTRIBUTORS).resolve(num_layers)
    for name in PUBLISHERS:
        publisher = PlanSpec(name).resolve(num_layers)
        yield (
            f"contributors {CONTRIBUTORS}, publisher more often",
            RolePlans(contributors=contributors, publisher=publisher),
        )


def measure_plans(
    profile: Profile | None, num_cases: int, console: Console
) -> list[dict[str, Any]]:
    engine = open_engine("default", progress=console.print)
    model, tokenizer = engine.model, engine.tokenizer
    num_layers = model.shape.num_layers
    cases = mixed_cases(num_cases, CASES_SEED)
    prompts = [tokenize_case(case, tokenizer, num_layers) for case in cases]
    meter = PlanMeter(model, prompts, ANSWER_TOKENS)
    rows = []
    for family, plans in grid(num_layers, profile or shipped_profile(model.fingerprint)):
        found = meter.measure(plans)
        right = [
            is_right(tokenizer.decode(one.answer), case)
            for one, case in zip(found, cases, strict=True)
        ]
        row = {
            "family": family,
            "layers": plans.num_travelling,
            "contributors": str(plans.contributors),
            "publisher": str(plans.publisher),
            "right": int(np.sum(right)),
            "cases": len(cases),
            "nll": float(np.mean([one.nll for one in found])),
            "divergence": float(np.mean([one.divergence for one in found])),
        }
        console.print(
            f"{family:<44}{row['layers']:>3} layers  right {row['right']:>3}/{len(cases)}  "
            f"NLL {row['nll']:.3f}  KL {row['divergence']:.4f}  {row['publisher']}",
            soft_wrap=True,
        )
        rows.append(row)
    return rows


def compare_searches(layers: int, console: Console) -> list[dict[str, Any]]:
    engine = open_engine("default", dtype=fastest_dtype(), progress=console.print)
    model, tokenizer = engine.model, engine.tokenizer
    candidates = tuple(range(1, model.shape.num_layers))
    search, held_out = (
        centralised_prompts(model, tokenizer, mixed_cases(count, SEARCH_SEED + offset))
        for count, offset in ((30, 0), (60, 30))
    )
    judge = PlanEvaluator(model, held_out)
    rows = []
    for name, strategy in STRATEGIES.items():
        evaluator = PlanEvaluator(model, search)
        begun = time.monotonic()
        for found in strategy(evaluator, candidates, layers):
            if found.plans.num_travelling == layers:
                best = found
        row = {
            "search": name,
            "layers": str(best.plans.publisher),
            "score": best.score,
            "held_out": judge.score(best.plans),
            "seconds": time.monotonic() - begun,
            "times_fewer_token_blocks": evaluator.speedup,
        }
        console.print(
            f"{name:<12} KL {row['score']:.3f}, held out {row['held_out']:.3f} nats an answer; "
            f"{row['seconds']:.0f} s, {row['times_fewer_token_blocks']:.1f} times fewer tokens "
            f"through blocks than naive; {row['layers']}",
            soft_wrap=True,
        )
        rows.append(row)
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - only here

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    panels = (
        ("right", "right answers"),
        ("nll", "answer NLL"),
        ("divergence", "KL from centralised"),
    )
    for axes, (key, label) in zip(figure.subplots(1, 3), panels, strict=True):
        for family in dict.fromkeys(row["family"] for row in rows):
            line = sorted((row["layers"], row[key]) for row in rows if row["family"] == family)
            if len(line) == 1:
                axes.plot(*line[0], "k^" if "every" in family else "kv", label=family)
            else:
                style = "o-" if family == "calibrated" else "s--"
                axes.plot(*zip(*line, strict=True), style, markersize=4, label=family)
        axes.set(xlabel="blocks whose rows travel", ylabel=label)
    figure.axes[2].legend(fontsize="x-small")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--profile", type=Path, help="instead of the shipped one")
    parser.add_argument("--searches", action="store_true", help="compare search strategies")
    parser.add_argument("--layers", type=int, default=10, help="size the searches are compared at")
    parser.add_argument("--json", type=Path, help="write results here")
    parser.add_argument("--plot", type=Path, help="draw the first table")
    options = parser.parse_args()
    console = Console(highlight=False)
    if options.searches:
        rows = compare_searches(options.layers, console)
    else:
        profile = load_profile(options.profile) if options.profile else None
        rows = measure_plans(profile, options.cases, console)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if options.plot is not None:
        draw(rows, options.plot)


if __name__ == "__main__":
    main()
