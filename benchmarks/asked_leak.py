"""How much of private notes a publisher recovers that only asks, and what bounds cost answers.

    python -m benchmarks.asked_leak --json benchmarks/results/asked_leak.json
    python -m benchmarks.asked_leak --json benchmarks/results/asked_leak.json --costs

Runs `fedattn leak --exchange ask` once a setting; about half an hour on one free core. What stands
in the JSON file already is not run again. With `--costs`, generated worlds of three contexts of
200 tokens are asked with each bound and with none: KL from no bound along the answer that this
gives, change of the given answer's NLL with a 95 % interval (bootstrap over worlds), and right
answers.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.blocks import ROOT
from benchmarks.leak import NOTES
from fedattn.cli.main import command_line
from fedattn.core.answer_bounds import AnswerBounds
from fedattn.core.compression import Compression
from fedattn.core.plans import PlanSpec, RolePlans
from fedattn.model.engine import open_engine
from fedattn.research.evaluate.pairs import bootstrap_mean
from fedattn.research.simulate import CaseResult, SimulationSettings, Simulator
from fedattn.research.tasks.cases import Case, is_right
from fedattn.research.tasks.worlds import WorldShape, generate_worlds

PLAN = "1-2,5,7-8,11-12,14-15,17-18,20-24,28-29"
ASK = f"--exchange ask --plan {PLAN} --enough 0.8 --candidates"
LISTEN, CHOOSE = "--attack overheard", "--attack chosen --query-tokens"
SETTINGS = {
    "honest publisher": f"{ASK} 1000 {LISTEN}",
    "honest publisher, guided": f"{ASK} 1000 {LISTEN} --guided",
    "chosen, 20 tokens": f"{ASK} 1000 {CHOOSE} 20",
    "chosen, 20 tokens, guided": f"{ASK} 1000 {CHOOSE} 20 --guided",
    "honest publisher, noise 0.1, guided": f"{ASK} 300 {LISTEN} --noise 0.1 --guided",
    "honest publisher, noise 0.1, 2 blocks, guided": (
        f"{ASK} 300 {LISTEN} --noise 0.1 --blocks 2 --guided"
    ),
    "chosen, 320 tokens, noise 0.3, guided": f"{ASK} 300 {CHOOSE} 320 --noise 0.3 --guided",
    "chosen, 1600 tokens, noise 1, guided": f"{ASK} 300 {CHOOSE} 1600 --noise 1 --guided",
    "chosen, 80 shorter tokens, least rows 8, guided": (
        f"{ASK} 300 {CHOOSE} 80 --query-length 0.3 --least-rows 8 --guided"
    ),
}
"""Options of `fedattn leak` by what they stand for."""
UNBOUNDED = {
    "honest publisher",
    "honest publisher, guided",
    "chosen, 20 tokens",
    "chosen, 20 tokens, guided",
}
"""Settings measured on all notes; the others on the first alone, whose tokens are among the 300
likeliest behind the true ones but for four of 37.
"""
BOUNDS = {
    "noise 0.03": AnswerBounds(noise=0.03, seed=0),
    "noise 0.1": AnswerBounds(noise=0.1, seed=0),
    "noise 0.3": AnswerBounds(noise=0.3, seed=0),
    "noise 1": AnswerBounds(noise=1.0, seed=0),
    "least rows 2": AnswerBounds(least_rows=2.0),
    "least rows 4": AnswerBounds(least_rows=4.0),
    "least rows 8": AnswerBounds(least_rows=8.0),
}
SHAPE, NUM_CASES, SEED = WorldShape(length=200, num_questions=6), 30, 77


def measure(name: str) -> dict[str, Any]:
    """What `fedattn leak` makes of the notes."""
    notes = [str(path) for path in sorted((ROOT / NOTES).glob("*.txt"))]
    chosen = notes if name in UNBOUNDED else notes[:1]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "leak.json"
        words = ["leak", *chosen, *SETTINGS[name].split(), f"--json={out}"]
        command_line()(words, standalone_mode=False)
        return json.loads(out.read_text())  # type: ignore[no-any-return]


class Costs:
    """What bounds do to answers, held against asking without any."""

    def __init__(self) -> None:
        engine = open_engine("default", None)
        self._simulator = Simulator(engine.prefiller, engine.tokenizer)
        self._cases = generate_worlds(
            NUM_CASES, SHAPE, lambda text: len(engine.tokenizer.plain(text)), seed=SEED
        )
        blocks = PlanSpec(PLAN).resolve(engine.model.shape.num_layers)
        nowhere = PlanSpec("none").resolve(engine.model.shape.num_layers)
        self._plans = RolePlans(contributors=nowhere, publisher=nowhere, asked=blocks)
        self._free = self._run(None, [None] * NUM_CASES)

    def measure(self, bounds: AnswerBounds) -> dict[str, Any]:
        """Of one bound."""
        bound = self._run(bounds, self._free)
        changes = [one.nll - free.nll for one, free in zip(bound, self._free, strict=True)]
        worlds = [at // SHAPE.num_questions for at in range(NUM_CASES)]
        interval = bootstrap_mean(changes, worlds)
        divergences = [one.divergence for one in bound if one.divergence is not None]
        return {
            "cases": NUM_CASES,
            "kl": sum(divergences) / len(divergences),
            "nll": [interval.mean, interval.low, interval.high],
            "right": sum(one.match for one in bound),
            "right_unbounded": sum(one.match for one in self._free),
        }

    def _run(
        self, bounds: AnswerBounds | None, free: Sequence[CaseResult | None]
    ) -> list[CaseResult]:
        settings = SimulationSettings(
            plans=self._plans,
            compression=Compression(),
            max_new_tokens=12,
            asked=(0, 1, 2),
            bounds=bounds,
        )
        return [
            self._one(case, settings, reference)
            for case, reference in zip(self._cases, free, strict=True)
        ]

    def _one(self, case: Case, settings: SimulationSettings, free: CaseResult | None) -> CaseResult:
        return self._simulator.run_tokens(
            self._simulator.cut(case),
            settings,
            lambda text: is_right(text, case),
            None if free is None else free.reference,
            as_reference=free is None,
        )


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: what was recovered, a row a setting, then what bounds cost, a row a bound."""
    lines = ["| setting | recovered | query tokens | options |", "| --- | --- | --- | --- |"]
    for name in [name for name in SETTINGS if name in results]:
        found = results[name]["attacks"][0]["found"]
        tokens = results[name]["texts"][0]["outcomes"][0]["query_tokens"]
        lines.append(f"| {name} | {found:.0%} | {tokens:,} | `{SETTINGS[name]}` |")
    lines += ["", "| bound | KL | NLL change | right answers |", "| --- | --- | --- | --- |"]
    for name in [name for name in BOUNDS if name in results]:
        cost = results[name]
        mean, low, high = cost["nll"]
        lines.append(
            f"| {name} | {cost['kl']:.3f} | {mean:+.3f} [{low:+.3f}, {high:+.3f}] | "
            f"{cost['right']} of {cost['cases']}, {cost['right_unbounded']} without |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--costs", action="store_true")
    parser.add_argument("settings", nargs="*", choices=[*SETTINGS, *BOUNDS, []])
    given = parser.parse_args()
    costs = Costs() if given.costs else None
    for name in given.settings or (BOUNDS if given.costs else SETTINGS):
        known = json.loads(given.json.read_text()) if given.json.exists() else {}
        if name not in known:
            measured = measure(name) if costs is None else costs.measure(BOUNDS[name])
            known = json.loads(given.json.read_text()) if given.json.exists() else {}
            given.json.write_text(json.dumps({**known, name: measured}, indent=1) + "\n")
            print(name, flush=True)
    print(table(json.loads(given.json.read_text())))


if __name__ == "__main__":
    main()
