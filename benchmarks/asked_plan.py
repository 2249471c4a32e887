"""At which blocks a publisher asks contributors whose rows stay with them: search, then a table.

    python -m benchmarks.asked_plan search [--model NAME] [--json FILE]
    python -m benchmarks.asked_plan table --plans FILE [--cases 40] [--long-cases 20] [--json FILE]

Contributors attend to nobody, each as if it followed the public prefix alone. The search leaves out
blocks whose loss moves the distribution least from that of asking at every block but 0 (KL along
the answer which that gives); it needs no right answers. The table is of other worlds.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedattn.core.errors import InvalidPlanError
from fedattn.core.plans import NOWHERE, PlanSpec, RolePlans, SyncPlan
from fedattn.core.spans import build_layout
from fedattn.model.engine import Engine, open_engine
from fedattn.model.exchange import InProcessExchange, KvStore
from fedattn.model.layer_cache import LayerCache
from fedattn.research.calibrate.forest import HeadPast, Past
from fedattn.research.calibrate.measuring import worlds_of
from fedattn.research.calibrate.questions import Questions
from fedattn.research.tasks.cases import Case
from fedattn.research.tasks.worlds import WorldShape, generate_worlds

SEARCH_SEED, TABLE_SEED = 3_000_001, 3_000_017
SEARCH_WORLDS = ((200, 2), (600, 1))
"""(tokens a context, worlds) that the search asks."""
SEARCH_QUESTIONS = 4
LENGTHS = (200, 600)
SIZES = (26, 23, 18, 13, 10, 8, 6)
"""Blocks after each round of the search."""
SCHEDULES = ("middle",)
RESAMPLES = 2000


class AskedWorld:
    """One world whose contributors have computed their rows.

    Args:
        engine: of the model.
        cases: questions about the same contexts.
    """

    def __init__(self, engine: Engine, cases: Sequence[Case]) -> None:
        model, tokenizer = engine.model, engine.tokenizer
        prefix, spans = tokenizer.prefix(), [tokenizer.context(one) for one in cases[0].contexts]
        num_layers = model.shape.num_layers
        names = [f"contributor-{at}" for at in range(len(spans))]
        self.every = SyncPlan(tuple(range(1, num_layers)))
        layout = build_layout(
            num_layers=num_layers,
            prefix_len=len(prefix),
            contributors=list(zip(names, map(len, spans), strict=True)),
            publisher=("publisher", 1),
            plans=RolePlans(contributors=NOWHERE, publisher=NOWHERE, asked=self.every),
            independent=True,
            asked=names,
        )
        store = KvStore(layout, model.shape, model.rotaries, windows=model.windows)
        for index, (member, span) in enumerate(zip(layout.contributors, spans, strict=True)):
            exchange = InProcessExchange(store, index)
            engine.prefiller.contribute(member, prefix, span, exchange)
        self._prefix = engine.prefiller.warm_prefix(prefix)
        self._asked = [store.asked[index].layers for index in range(len(spans))]
        whole = self.past(self.every)
        start = len(prefix) + sum(map(len, spans))
        self._questions = Questions(engine, cases, start, whole)

    def past(self, plan: SyncPlan) -> Past:
        """What a publisher sees that asks at some blocks: rows of others there, merged exactly."""
        pasts = []
        for layer, rows in enumerate(self._prefix):
            others = [asked[layer] for asked in self._asked] if layer in plan else []
            pasts.append(_heads([rows, *others]))
        return pasts

    def compare(self, plan: SyncPlan) -> list[tuple[float, float]]:
        """Of each question: KL, and the change of the given answer's NLL; nats a token."""
        return self._questions.compare(self.past(plan))

    def divergence(self, plan: SyncPlan) -> float:
        """Mean KL over the questions, nats a token."""
        return float(np.mean([kl for kl, _ in self.compare(plan)]))


def _heads(parts: Sequence[LayerCache]) -> list[HeadPast]:
    keys = torch.cat([part.keys[0] for part in parts], dim=1)
    values = torch.cat([part.values[0] for part in parts], dim=1)
    positions = torch.cat([part.positions for part in parts])
    none = torch.zeros(len(positions))
    return [(keys[head], values[head], none, positions) for head in range(len(keys))]


def worlds(
    engine: Engine, length: int, num_cases: int, questions: int, seed: int
) -> list[AskedWorld]:
    """Worlds of so many questions together."""
    shape = WorldShape(length=length, num_questions=questions)

    def count(text: str) -> int:
        return len(engine.tokenizer.plain(text))

    cases = generate_worlds(num_cases, shape, count, seed=seed)
    return [AskedWorld(engine, same) for same in worlds_of(cases)]


def search(engine: Engine) -> dict[str, Any]:
    """Leave out blocks, a few a round and those first that are missed least."""
    asked = [
        world
        for length, count in SEARCH_WORLDS
        for world in worlds(engine, length, count * SEARCH_QUESTIONS, SEARCH_QUESTIONS, SEARCH_SEED)
    ]
    kept = list(asked[0].every.layers)
    steps = []
    for size in SIZES:
        losses = {
            layer: _mean_divergence(asked, [other for other in kept if other != layer])
            for layer in kept
        }
        dropped = sorted(kept, key=losses.__getitem__)[: max(0, len(kept) - size)]
        kept = [layer for layer in kept if layer not in dropped]
        plan, kl = SyncPlan(tuple(kept)), _mean_divergence(asked, kept)
        steps.append({"blocks": len(kept), "plan": str(plan), "kl": kl, "losses": losses})
        print(f"{len(kept):3} blocks, KL {kl:.4f}: {plan}", flush=True)
    return {"model": engine.model.fingerprint, "steps": steps}


def _mean_divergence(asked: Sequence[AskedWorld], layers: Sequence[int]) -> float:
    plan = SyncPlan(tuple(layers))
    return float(np.mean([one.divergence(plan) for one in asked]))


def candidates(found: dict[str, Any], num_layers: int) -> dict[str, SyncPlan]:
    """Plans of the table, by name."""
    plans = {"every block but 0": SyncPlan(tuple(range(1, num_layers)))}
    by_size = {step["blocks"]: step["plan"] for step in found["steps"]}
    for size, plan in by_size.items():
        plans[f"found, {size}"] = PlanSpec(plan).resolve(num_layers)
    for name in SCHEDULES:
        try:
            plans[f"{name}@10"] = PlanSpec(f"{name}@10").resolve(num_layers)
        except InvalidPlanError:
            continue
    return plans


def table(engine: Engine, found: dict[str, Any], cases: dict[int, int]) -> list[dict[str, Any]]:
    """A row a length and plan, printed as it comes."""
    rows = []
    plans = candidates(found, engine.model.shape.num_layers)
    for length, num_cases in cases.items():
        asked = worlds(engine, length, num_cases, 5, TABLE_SEED)
        for name, plan in plans.items():
            each = [one for world in asked for one in world.compare(plan)]
            kl, change = (np.array(column) for column in zip(*each, strict=True))
            row: dict[str, Any] = {
                "length": length, "name": name, "plan": str(plan), "blocks": len(plan.layers),
                "questions": len(each),
                "kl": _interval(kl), "nll_change": _interval(change),
            }  # fmt: skip
            rows.append(row)
            print(
                f"{length:4} {name:18} {len(each):3} questions  "
                f"KL {_shown(row['kl'])}  NLL {_shown(row['nll_change'], '+')}  {plan}",
                flush=True,
            )
    return rows


def _interval(values: Any) -> list[float]:
    """Mean, and 95 % of means of as many questions drawn from these again."""
    drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values))).mean(axis=1)
    return [float(values.mean()), *map(float, np.percentile(drawn, (2.5, 97.5)))]


def _shown(interval: list[float], sign: str = "") -> str:
    mean, low, high = (format(one, f"{sign}.3f") for one in interval)
    return f"{mean} [{low}, {high}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=("search", "table"))
    parser.add_argument("--model", default="default")
    parser.add_argument("--plans", type=Path, help="what the search wrote")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--long-cases", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    engine = open_engine(arguments.model, weights="float32")
    if arguments.what == "search":
        result: Any = search(engine)
    else:
        found = json.loads(arguments.plans.read_text()) if arguments.plans else {"steps": []}
        numbers = (arguments.cases, arguments.long_cases)
        result = table(engine, found, dict(zip(LENGTHS, numbers, strict=True)))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
