"""How many drafted tokens hold, and what a pass costs, on the embedded model.

    python -m benchmarks.drafts [--cases 20] [--plan auto] [--json FILE]

Three contributors of 200 tokens that are asked in this process; questions of generated worlds,
greedy answers of at most 32 tokens. Seconds are of one thread's CPU.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from fedattn.cli.plans import choose
from fedattn.core.plans import NOWHERE, RolePlans
from fedattn.core.sampling import SamplingParams
from fedattn.model.draft_pace import DraftPace
from fedattn.model.drafted import DraftCounts, generate_drafted
from fedattn.model.engine import open_engine
from fedattn.research.simulate import SimulationSettings, Simulator
from fedattn.research.tasks.worlds import WorldShape, generate_worlds

SEED = 3_000_029
NUM_DRAFTS = (0, 1, 3, 7)
SAMPLING = SamplingParams.most_likely(32)


class Fixed(DraftPace):
    """Always as many drafts."""

    def __init__(self, num_drafts: int) -> None:
        super().__init__()
        self._num_drafts = num_drafts
        self.held = self.tried = 0

    def choose(self, most: int) -> int:
        return min(self._num_drafts, most)

    def verified(self, num_drafts: int, num_held: int, seconds: float) -> None:
        self.held += num_held
        self.tried += min(num_drafts, num_held + 1)
        super().verified(num_drafts, num_held, seconds)


def measure(num_cases: int, plan: str) -> list[dict[str, Any]]:
    """A row a number of drafts, printed as it comes."""
    engine = open_engine("default")
    model, tokenizer = engine.model, engine.tokenizer
    asked = choose(plan, None, model.shape.num_layers, model.fingerprint).plans.asked
    simulator = Simulator(engine.prefiller, tokenizer)
    shape = WorldShape(length=200, num_questions=5)
    cases = generate_worlds(num_cases, shape, lambda text: len(tokenizer.plain(text)), seed=SEED)
    settings = SimulationSettings(
        plans=RolePlans(contributors=NOWHERE, publisher=NOWHERE, asked=asked),
        compression=choose("none", None, model.shape.num_layers, model.fingerprint).compression,
        independent=True,
        asked=(0, 1, 2),
    )
    rows = []
    for num_drafts in NUM_DRAFTS:
        pace, counts, num_tokens = Fixed(num_drafts), DraftCounts(), 0
        for case in cases:
            prefill = simulator.prefill(simulator.cut(case), settings).prefill
            num_tokens += len(
                list(
                    generate_drafted(
                        model, prefill, SAMPLING, pace=pace, counts=counts, clock=time.thread_time
                    )
                )
            )
        row = {
            "drafts": num_drafts,
            "tokens": num_tokens,
            "passes": counts.passes,
            "acceptance": pace.held / max(pace.tried, 1),
            "ms_a_draft": 1000 * counts.draft_s / max(counts.drafted, 1),
            "ms_a_pass": 1000 * counts.pass_s / max(counts.passes, 1),
        }
        rows.append(row)
        print(
            f"{num_drafts} drafts  {num_tokens} tokens in {counts.passes} passes  "
            f"{row['acceptance']:.2f} hold  {row['ms_a_draft']:.0f} ms a draft  "
            f"{row['ms_a_pass']:.0f} ms a pass",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--plan", default="auto")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(arguments.cases, arguments.plan)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
