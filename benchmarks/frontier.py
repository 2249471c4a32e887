"""Bytes against quality, on texts of real length: the points of a profile beside every block.

    python -m benchmarks.frontier [--model M] [--profile FILE] [--length 50:300 ...]
                                  [--cases FILE:COUNT ...] [--json FILE] [--part 0/2]

Generated worlds of three contexts, ten questions each, and files of cases. Contributors attend to
each other as in a session, every row through its frame. All questions of a world run in one pass.
Printed for each set: bf16 bytes at every block divided by those that travelled, right answers with
those gained and lost and McNemar's p, change of the given answer's NLL with a 95 % interval
(bootstrap over worlds), KL along centralised's answer. `--part` takes every Nth world, so that
processes can share the work; `--join FILE ...` prints what they wrote.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.plans import PlanSpec, RolePlans, shared_plan
from fedattn.core.profile import Profile, resolve
from fedattn.core.row_scores import RowScorer
from fedattn.core.spans import SessionLayout, build_layout
from fedattn.model.cache import FederatedCache
from fedattn.model.engine import Engine, open_engine
from fedattn.model.exchange import InProcessExchange, KvStore
from fedattn.model.prefill import forward_tokens
from fedattn.profiles import load_profile, shipped_profile
from fedattn.research.calibrate.forest import Past
from fedattn.research.calibrate.measuring import past_of, worlds_of
from fedattn.research.calibrate.questions import Questions
from fedattn.research.evaluate.pairs import compare
from fedattn.research.evaluate.scores import CaseScore
from fedattn.research.tasks.cases import Case, is_right, read_cases
from fedattn.research.tasks.worlds import WorldShape, generate_worlds

CENTRALISED = "every block, bf16"
FORMER = "1-2,5,7-8,11-12,14-15,17-18,20-24,28-29"
"""The blocks that the embedded model's `auto` took before heads kept rows of their own."""
QUESTIONS = 10
SEED = 77


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
    careful = resolve(PlanSpec("auto"), PlanSpec("auto"), num_layers, None)
    found.append(Way(name="no profile", plans=careful.plans, compression=careful.compression))
    if num_layers == 30:
        blocks = PlanSpec(FORMER).resolve(num_layers)
        former = RolePlans(contributors=blocks, publisher=blocks)
        found.append(Way(name="former auto, 18 blocks", plans=former, compression=Compression()))
    for plan in ("auto", "auto@1/20", "auto@1/40") if profile else ():
        spec = PlanSpec(plan)
        one = resolve(spec, spec, num_layers, profile)
        name = f"{plan} ({one.compression.keep_ratio:g} {one.compression.codec.name})"
        scorer = None if profile is None else profile.scorer
        found.append(Way(name=name, plans=one.plans, compression=one.compression, scorer=scorer))
    return found


class Sessions:
    """Sessions about one world, as far as the publisher's question."""

    def __init__(self, engine: Engine, cases: Sequence[Case]) -> None:
        self._engine, self.cases = engine, cases
        tokenizer, model = engine.tokenizer, engine.model
        self._prefix = tokenizer.prefix()
        self._spans = [tokenizer.context(text) for text in cases[0].contexts]
        cache = FederatedCache(model.shape.num_layers, model.device)
        with torch.inference_mode():
            forward_tokens(model, cache, self._prefix, range(len(self._prefix)))
        self._prefix_rows = [(layer.keys[0], layer.values[0]) for layer in cache.layers]

    @property
    def start(self) -> int:
        """Position of the question's first token."""
        return len(self._prefix) + sum(map(len, self._spans))

    def run(self, way: Way) -> tuple[Past, int]:
        """What the publisher sees, and the bytes that travelled."""
        model, layout = self._engine.model, self._layout(way)
        store = KvStore(layout, model.shape, model.rotary, scorer=way.scorer)
        for index, span in enumerate(self._spans):
            exchange = InProcessExchange(store, index)
            self._engine.prefiller.contribute(layout.members[index], self._prefix, span, exchange)
        parts = {
            layer: [store.rows(index, layer) for index in range(len(self._spans))]
            for layer in way.plans.publisher.layers
        }
        return past_of(self._prefix_rows, parts), store.uploaded_bytes

    def _layout(self, way: Way) -> SessionLayout:
        return build_layout(
            num_layers=self._engine.model.shape.num_layers,
            prefix_len=len(self._prefix),
            contributors=[(f"c{index}", len(span)) for index, span in enumerate(self._spans)],
            publisher=("publisher", 1),
            plans=way.plans,
            compression=way.compression,
        )


def measure(engine: Engine, cases: Sequence[Case], found: list[Way]) -> list[dict[str, Any]]:
    """One world: a record a question, with every way's result."""
    sessions = Sessions(engine, cases)
    first, central_bytes = sessions.run(found[0])
    questions = Questions(engine, cases, sessions.start, first)
    records: list[dict[str, Any]] = [{"kind": case.kind} for case in cases]
    nlls = questions.nlls
    for way in found:
        past, num_bytes = (first, central_bytes) if way.name == CENTRALISED else sessions.run(way)
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
        length, _, count = given.partition(":")
        shape = WorldShape(length=int(length), num_questions=QUESTIONS)
        cases = generate_worlds(
            int(count or 300), shape, lambda text: len(engine.tokenizer.plain(text)), seed=SEED
        )
        yield f"{length} tokens a context", cases
    for given in arguments.cases:
        path, _, count = given.rpartition(":")
        yield Path(path).stem, read_cases(Path(path))[: int(count)]


def show(records: dict[str, list[dict[str, Any]]]) -> None:
    """The table, as Markdown."""
    print("| set | way | 1/bytes | right | gained, lost, p | NLL change | KL |")
    print("|---|---|---|---|---|---|---|")
    for name, each in records.items():
        worlds = [record["world"] for record in each]
        names = [key for key in each[0] if key not in {"kind", "world"}]
        scores = {way: [_score(record[way]) for record in each] for way in names}
        base = scores[CENTRALISED]
        for way in names:
            pairs = compare(scores[way], base, worlds)
            fewer = sum(one.kv_bytes for one in base) / sum(one.kv_bytes for one in scores[way])
            nll, kl = pairs.nll, pairs.divergence
            assert nll is not None
            assert kl is not None
            spread = "" if nll.low is None else f" [{nll.low:+.3f}, {nll.high:+.3f}]"
            print(
                f"| {name} | {way} | {fewer:.1f} | {sum(one.match for one in scores[way])} of "
                f"{pairs.cases} | +{pairs.gained} -{pairs.lost}, {pairs.p_value:.2f} | "
                f"{nll.mean:+.3f}{spread} | {kl.mean:.4f} |"
            )


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
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--join", nargs="*", type=Path)
    arguments = parser.parse_args()
    if arguments.join:
        joined: dict[str, list[dict[str, Any]]] = {}
        for path in arguments.join:
            for name, each in json.loads(path.read_text()).items():
                joined.setdefault(name, []).extend(each)
        show(joined)
        if arguments.json:
            arguments.json.write_text(json.dumps(joined) + "\n")
        return
    engine = open_engine(arguments.model)
    fingerprint = engine.model.fingerprint
    profile = load_profile(arguments.profile) if arguments.profile else shipped_profile(fingerprint)
    found = ways(engine.model.shape.num_layers, profile)
    part, _, parts = arguments.part.partition("/")
    records: dict[str, list[dict[str, Any]]] = {}
    for name, cases in task_sets(arguments, engine):
        for number, world in enumerate(worlds_of(cases)):
            if number % int(parts) != int(part):
                continue
            done = measure(engine, world, found)
            records.setdefault(name, []).extend({"world": number, **one} for one in done)
            if arguments.json:
                arguments.json.write_text(json.dumps(records) + "\n")
            print(f"{name}: world {number}", flush=True)
    show(records)


if __name__ == "__main__":
    main()
