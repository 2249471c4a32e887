"""Sync plans on the embedded model: right answers, NLL and KL against the blocks that synchronise.

    python -m benchmarks.plans [--cases 60] [--json FILE] [--plot FILE]

Measures every schedule of the paper on generated cases, float32, without codec; every row travels
at the blocks of a plan. What a profile does instead is in its own file.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.errors import InvalidPlanError
from fedattn.core.plans import PlanSpec, RolePlans, shared_plan
from fedattn.core.schedules import SCHEDULES
from fedattn.model.engine import open_engine
from fedattn.research.simulate import CaseResult, SimulationSettings, Simulator
from fedattn.research.tasks.cases import Case, is_right
from fedattn.research.tasks.retrieval import ALL_KINDS, generate_cases

SIZES = (5, 8, 10, 15, 20)
CONTRIBUTORS, PUBLISHERS = "uniform:6", ("uniform:3", "uniform:2", "all")
CASES_SEED = 2_000_003
ANSWER_TOKENS = 20
NUM_CONTEXTS = (2, 3, 4)


def mixed_cases(count: int, seed: int = CASES_SEED) -> list[Case]:
    """Generated cases of all kinds over 2, 3 and 4 contexts in turn."""
    kinds = [
        generate_cases(-(-count // 3), seed=seed + offset, num_contexts=num, kinds=ALL_KINDS)
        for offset, num in enumerate(NUM_CONTEXTS)
    ]
    return [case for same in zip(*kinds, strict=True) for case in same][:count]


def grid(num_layers: int) -> Iterator[tuple[str, RolePlans]]:
    """Family and plans of every row; the first is what the others are compared with."""
    nobody, everywhere = shared_plan(()).publisher, shared_plan(range(num_layers)).publisher
    yield "every block", shared_plan(range(num_layers))
    yield "every block but 0", shared_plan(range(1, num_layers))
    yield "none", shared_plan(())
    yield (
        "publisher everywhere, contributors nowhere",
        RolePlans(contributors=nobody, publisher=everywhere),
    )
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


def measure_plans(num_cases: int, console: Console) -> list[dict[str, Any]]:
    """One row a plan, printed as it comes."""
    engine = open_engine("default", progress=console.print)
    simulator = Simulator(engine.prefiller, engine.tokenizer)
    cases = mixed_cases(num_cases)
    references: list[CaseResult] = []
    rows = []
    for family, plans in grid(engine.model.shape.num_layers):
        settings = SimulationSettings(
            plans=plans,
            compression=Compression(codec=codec_by_name("fp32")),
            max_new_tokens=ANSWER_TOKENS,
        )
        found = []
        for at, case in enumerate(cases):
            reference = references[at].reference if len(references) == len(cases) else None
            found.append(
                simulator.run_tokens(
                    simulator.cut(case),
                    settings,
                    lambda text, case=case: is_right(text, case),  # type: ignore[misc]
                    reference,
                    as_reference=reference is None,
                )
            )
        references = references or found
        rows.append(_row(family, plans, found))
        console.print(
            "{family:<44}{layers:>3} layers  right {right:>3}/{cases}  NLL {nll:.3f}  "
            "KL {divergence:.4f}  {publisher}".format(**rows[-1]),
            soft_wrap=True,
        )
    return rows


def _row(family: str, plans: RolePlans, found: list[CaseResult]) -> dict[str, Any]:
    return {
        "family": family,
        "layers": plans.num_travelling,
        "contributors": str(plans.contributors),
        "publisher": str(plans.publisher),
        "right": sum(one.match for one in found),
        "cases": len(found),
        "nll": fmean(one.nll for one in found),
        "divergence": fmean(one.divergence or 0.0 for one in found),
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Three panels: right answers, NLL, KL."""
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
                axes.plot(*zip(*line, strict=True), "s--", markersize=4, label=family)
        axes.set(xlabel="blocks whose rows travel", ylabel=label)
    figure.axes[2].legend(fontsize="x-small")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--json", type=Path, help="write results here")
    parser.add_argument("--plot", type=Path, help="draw them")
    options = parser.parse_args()
    rows = measure_plans(options.cases, Console(highlight=False))
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if options.plot is not None:
        draw(rows, options.plot)


if __name__ == "__main__":
    main()
