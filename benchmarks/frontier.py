"""Bytes against quality, on texts of real length: the points of a profile beside every block.

    python -m benchmarks.frontier [--model M] [--profile FILE] [--length 50:300:10 ...]
                                  [--cases FILE:COUNT ...] [--gsm8k FILE:COUNT]
                                  [--part 0/2] [--json FILE]

Generated worlds of three contexts (tokens a context, questions in all, questions a world), files of
cases, and problems of GSM8K behind four worked ones. Contributors attend to each other as in a
session, every row through its frame. All questions of a world run in one pass. Answers are decoded
for 12 tokens: enough for those of a word or number, so GSM8K's are never right.
Printed for each set: bf16 bytes at every block divided by those that travelled, right answers with
those gained and lost and McNemar's p, change of the given answer's NLL with a 95 % interval
(bootstrap over worlds), KL along centralised's answer. `--part` takes every Nth world, so that
processes can share the work; `--join FILE ...` goes on from what they wrote. `--summary FILE` and
`--plot FILE` write the table as JSON and as a picture.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.plans import PlanSpec, RolePlans, shared_plan
from fedattn.core.profile import Profile, resolve
from fedattn.core.row_scores import RowScorer
from fedattn.model.engine import Engine, open_engine
from fedattn.profiles import load_profile, shipped_profile
from fedattn.research.calibrate.measuring import WorldMeter, worlds_of
from fedattn.research.evaluate.pairs import compare
from fedattn.research.evaluate.scores import CaseScore
from fedattn.research.tasks.cases import Case, is_right, read_cases
from fedattn.research.tasks.gsm8k import gsm8k_task
from fedattn.research.tasks.worlds import WorldShape, generate_worlds

CENTRALISED = "every block, bf16"
FORMER = "1-2,5,7-8,11-12,14-15,17-18,20-24,28-29"
"""The blocks that the embedded model's `auto` took before heads kept rows of their own."""
SEED = 77
MOST_QUESTIONS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way for rows to travel."""

    name: str
    plans: RolePlans
    compression: Compression
    scorer: RowScorer | None = None


def ways(num_layers: int, profile: Profile | None) -> list[Way]:
    """What is compared; the first is the measure of all."""
    every = shared_plan(range(num_layers))
    bf16 = Compression(codec=codec_by_name("bf16"))
    found = [Way(name=CENTRALISED, plans=every, compression=bf16)]
    without = shared_plan(range(1, num_layers))
    found.append(Way(name="every block but 0, bf16", plans=without, compression=bf16))
    careful = resolve(PlanSpec("auto"), PlanSpec("auto"), num_layers, None)
    found.append(Way(name="no profile", plans=careful.plans, compression=careful.compression))
    if num_layers == 30:
        blocks = PlanSpec(FORMER).resolve(num_layers)
        former = RolePlans(contributors=blocks, publisher=blocks)
        fine = Compression(codec=codec_by_name("entropy-fine"))
        found.append(Way(name="former auto, 18 blocks", plans=former, compression=fine))
    for plan in ("auto", "auto@1/16", "auto@1/20", "auto@1/40") if profile else ():
        spec = PlanSpec(plan)
        one = resolve(spec, spec, num_layers, profile)
        name = f"{plan} ({one.compression.keep_ratio:g} {one.compression.codec.name})"
        scorer = None if profile is None else profile.scorer
        found.append(Way(name=name, plans=one.plans, compression=one.compression, scorer=scorer))
    return found


def measure(engine: Engine, cases: Sequence[Case], found: list[Way]) -> list[dict[str, Any]]:
    """One world: a record a question, with every way's result."""
    world = WorldMeter(engine, cases)
    questions, nlls = world.questions, world.questions.nlls
    records: list[dict[str, Any]] = [{"kind": case.kind} for case in cases]
    for way in found:
        if way.name == CENTRALISED:
            past, num_bytes = world.whole, world.whole_bytes
        else:
            past, num_bytes = world.run(way.plans, way.compression, way.scorer)
        each = zip(
            records, cases, questions.compare(past), questions.answers(past), nlls, strict=True
        )
        for record, case, (divergence, change), tokens, nll in each:
            text = engine.tokenizer.decode(
                [token for token in tokens if token not in engine.model.end_token_ids]
            )
            record[way.name] = [is_right(text, case), nll + change, divergence, num_bytes]
    return records


def task_sets(arguments: argparse.Namespace, engine: Engine) -> Iterator[tuple[str, list[Case]]]:
    """Names of sets, and their cases."""
    for given in arguments.length:
        length, count, questions = map(int, f"{given}:300:10".split(":")[:3])
        shape = WorldShape(length=length, num_questions=questions)
        cases = generate_worlds(
            count, shape, lambda text: len(engine.tokenizer.plain(text)), seed=SEED
        )
        yield f"{length} tokens a context", cases
    for given in arguments.cases:
        path, _, count = given.rpartition(":")
        yield Path(path).stem, read_cases(Path(path))[: int(count)]
    for given in arguments.gsm8k:
        path, _, count = given.rpartition(":")
        yield "GSM8K", list(gsm8k_task(Path(path), int(count)).cases)


def batches_of(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """Worlds, cut where they have more questions than fit into one pass."""
    for world in worlds_of(cases):
        for first in range(0, len(world), MOST_QUESTIONS):
            yield world[first : first + MOST_QUESTIONS]


def summarize(records: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each set and way, as JSON values."""
    rows = []
    for name, each in records.items():
        worlds = [record["world"] for record in each]
        names = [key for key in each[0] if key not in {"kind", "world"}]
        scores = {way: [_score(record[way]) for record in each] for way in names}
        base = scores[CENTRALISED]
        for way in names:
            pairs = compare(scores[way], base, worlds)
            total = sum(one.kv_bytes for one in scores[way])
            assert pairs.nll is not None
            assert pairs.divergence is not None
            rows.append(
                {
                    "set": name,
                    "way": way,
                    "fewer_bytes": round(sum(one.kv_bytes for one in base) / total, 2),
                    "cases": pairs.cases,
                    "worlds": pairs.worlds,
                    "right": sum(one.match for one in scores[way]),
                    "gained": pairs.gained,
                    "lost": pairs.lost,
                    "p_value": round(pairs.p_value, 4),
                    "nll": [pairs.nll.mean, pairs.nll.low, pairs.nll.high],
                    "kl": pairs.divergence.mean,
                }
            )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """The table, as Markdown."""
    print("| set | rows | bf16 / bytes | right | gained, lost, p | NLL change | KL |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        mean, low, high = row["nll"]
        spread = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
        print(
            f"| {row['set']} | {row['way']} | {row['fewer_bytes']:.1f} | {row['right']} of "
            f"{row['cases']} | +{row['gained']} -{row['lost']}, {row['p_value']:.2f} | "
            f"{mean:+.3f}{spread} | {row['kl']:.3f} |"
        )


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """KL against bytes, a line a set; the former default is a cross."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["set"] for row in rows):
        here = [row for row in rows if row["set"] == name and row["way"] != CENTRALISED]
        line = sorted((row["fewer_bytes"], row["kl"]) for row in here if "former" not in row["way"])
        (drawn,) = axes.plot(*zip(*line, strict=True), marker="o", label=name)
        former = [(row["fewer_bytes"], row["kl"]) for row in here if "former" in row["way"]]
        if former:
            axes.plot(*zip(*former, strict=True), marker="x", linestyle="", color=drawn.get_color())
    axes.set(
        xlabel="bytes of bf16 at every block / bytes that travel",
        ylabel="KL from every block, nats a token",
        title="crosses: 18 blocks, the former default",
    )
    axes.legend()
    figure.savefig(path)


def _score(given: list[Any]) -> CaseScore:
    match, nll, divergence, num_bytes = given
    return CaseScore(
        text="", match=bool(match), nll=nll, divergence=divergence, kv_bytes=int(num_bytes)
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--length", nargs="*", default=[])
    parser.add_argument("--cases", nargs="*", default=[])
    parser.add_argument("--gsm8k", nargs="*", default=[])
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--join", nargs="*", type=Path)
    parser.add_argument("--summary", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    if arguments.join:
        joined: dict[str, list[dict[str, Any]]] = {}
        for path in arguments.join:
            for name, each in json.loads(path.read_text()).items():
                joined.setdefault(name, []).extend(each)
        finish(summarize(joined), arguments)
        return
    engine = open_engine(arguments.model)
    fingerprint = engine.model.fingerprint
    profile = load_profile(arguments.profile) if arguments.profile else shipped_profile(fingerprint)
    found = ways(engine.model.shape.num_layers, profile)
    part, _, parts = arguments.part.partition("/")
    records: dict[str, list[dict[str, Any]]] = {}
    for name, cases in task_sets(arguments, engine):
        for number, world in enumerate(batches_of(cases)):
            if number % int(parts) != int(part):
                continue
            done = measure(engine, world, found)
            records.setdefault(name, []).extend({"world": number, **one} for one in done)
            if arguments.json:
                arguments.json.write_text(json.dumps(records) + "\n")
            print(f"{name}: world {number}", flush=True)
    finish(summarize(records), arguments)


def finish(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Print what came out, and write what was asked for."""
    show(rows)
    if arguments.summary:
        arguments.summary.write_text(json.dumps(rows, indent=1) + "\n")
    if arguments.plot:
        draw(rows, arguments.plot)


if __name__ == "__main__":
    main()
