"""What it costs that contributors do not see each other, on the embedded model.

    python -m benchmarks.independent [--cases 60] [--json FILE]

Right answers, answer NLL and KV bytes of generated questions that no plan was found on, over the
in-process exchange with the default codec: contributors that attend to each other, contributors
that do not but keep their places, and independent ones, whose rows fit any order.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.plans import ANSWER_TOKENS, mixed_cases
from fedattn.cli.plans import choose
from fedattn.model.engine import open_engine
from fedattn.research.simulate import SimulationSettings, Simulator

ROWS = (
    ("attend to each other", "auto", "auto", False),
    ("attend to each other", "1-29", "1-29", False),
    ("attend to nobody, keep their places", "none", "auto", False),
    ("attend to nobody, keep their places", "none", "1-29", False),
    ("independent", "none", "auto", True),
    ("independent", "none", "1-29", True),
)


def measure(num_cases: int) -> list[dict[str, Any]]:
    """One row a setting, printed as it comes."""
    engine = open_engine("default")
    model = engine.model
    simulator = Simulator(engine.prefiller, engine.tokenizer)
    cases = mixed_cases(num_cases)
    rows = []
    for name, plan, publisher_plan, independent in ROWS:
        chosen = choose(plan, publisher_plan, model.shape.num_layers, model.fingerprint)
        settings = SimulationSettings(
            plans=chosen.plans,
            compression=chosen.compression,
            scorer=chosen.scorer,
            max_new_tokens=ANSWER_TOKENS,
            independent=independent,
        )
        results = list(simulator.run(cases, settings))
        row: dict[str, Any] = {
            "contributors": name,
            "publisher_plan": publisher_plan,
            "right": sum(result.match for result in results),
            "cases": len(results),
            "nll": statistics.fmean(result.nll for result in results),
            "kv_bytes": sum(result.kv_bytes for result in results),
        }
        print(
            f"{name:36} publisher {publisher_plan:5} right {row['right']:3}/{len(results)}  "
            f"NLL {row['nll']:.3f}  {row['kv_bytes'] / 1e6:.1f} MB",
            flush=True,
        )
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = measure(arguments.cases)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
