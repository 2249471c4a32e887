"""Whether attention finds the text that an answer came from, and whether a question has one.

    python -m benchmarks.attribution [--cases 30] [--contexts 4] [--json FILE]

Generated questions whose answer is in one of several contexts of independent contributors, on the
embedded model; each once with that context, and once with another in its place. Prints how often
the passage with the largest share, and with the most attention, is the source of the given answer;
and how well each candidate for `support` tells right answers from those to questions that no
context answers, as the area under the ROC curve (0.5 is chance), decoded in int8.
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedattn.cli.plans import choose
from fedattn.core.sampling import SamplingParams
from fedattn.core.spans import SessionLayout, build_layout
from fedattn.model.attribution import Attribution, attribute_answer
from fedattn.model.decode import generate_tokens
from fedattn.model.engine import Engine, open_engine
from fedattn.model.exchange import InProcessExchange, KvStore
from fedattn.model.fused import INT8, FusedDecoder
from fedattn.model.likelihood import log_probs_alone, log_probs_of
from fedattn.model.prefill import PrefillResult
from fedattn.model.support import (
    copying_attention,
    gain_from_others,
    least_probability,
    mean_probability,
    passage_attention,
)
from fedattn.research.tasks.cases import Case, is_right
from fedattn.research.tasks.retrieval import KINDS as RETRIEVAL_KINDS
from fedattn.research.tasks.retrieval import TWO_HOP, generate_cases

SEED, NUM_NEW_TOKENS = 21, 20
KINDS = tuple(kind for kind in RETRIEVAL_KINDS if kind != TWO_HOP)


class Bench:
    """Runs cases on one model."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._decoder = FusedDecoder(engine.model, INT8)

    def found(self, case: Case) -> dict[str, bool]:
        """Whether the source of the given answer is found."""
        prefill, layout, _ = self._prefill(case)
        answer = self._engine.tokenizer.plain(case.answer)
        source = _source(case)
        attribution = self._attribute(prefill, layout, answer)
        ranked = {"share": attribution.shares, "mean attention": attribution.masses}
        return {name: found.index(max(found)) == source for name, found in ranked.items()}

    def support(self, case: Case) -> tuple[bool, dict[str, float]]:
        """Whether the model's own answer is right, and every candidate."""
        prefill, layout, question = self._prefill(case)
        model, sampling = self._engine.model, SamplingParams.most_likely(NUM_NEW_TOKENS)
        answer = list(generate_tokens(model, prefill, sampling, lambda: self._decoder))
        attribution = self._attribute(prefill, layout, answer)
        decoded = log_probs_of(model, prefill, answer)
        own = (layout.publisher.span, question)
        alone = log_probs_alone(model, prefill, own, answer, layout.prefix_len)
        return is_right(self._engine.tokenizer.decode(answer), case), {
            "mean_probability": mean_probability(decoded),
            "least_probability": least_probability(decoded),
            "passage_attention": passage_attention(attribution),
            "copying_attention": copying_attention(attribution),
            "gain_from_others": gain_from_others(decoded, alone),
        }

    def _attribute(
        self, prefill: PrefillResult, layout: SessionLayout, answer: list[int]
    ) -> Attribution:
        passages = [member.span for member in layout.contributors]
        layers = layout.publisher.plan.layers
        return attribute_answer(self._engine.model, prefill, answer, passages, layers)

    def _prefill(self, case: Case) -> tuple[PrefillResult, SessionLayout, list[int]]:
        model, cut = self._engine.model, self._engine.tokenizer
        prefix, question = cut.prefix(), cut.question(case.question)
        spans = [cut.context(text) for text in case.contexts]
        layout = build_layout(
            num_layers=model.shape.num_layers,
            prefix_len=len(prefix),
            contributors=[(f"contributor-{i + 1}", len(span)) for i, span in enumerate(spans)],
            publisher=("publisher", len(question)),
            plans=choose("none", "auto", model.shape.num_layers, model.fingerprint).plans,
            independent=True,
        )
        store = KvStore(layout, model.shape, model.rotaries)
        for index, span in enumerate(spans):
            exchange = InProcessExchange(store, index)
            self._engine.prefiller.contribute(layout.members[index], prefix, span, exchange)
        last = InProcessExchange(store, len(spans))
        prefill = self._engine.prefiller.publish(layout.publisher, prefix, question, last)
        return prefill, layout, question


def _source(case: Case) -> int:
    return next(i for i, text in enumerate(case.contexts) if case.answer in text)


def _without(case: Case, dropped: int) -> Case:
    contexts = tuple(text for i, text in enumerate(case.contexts) if i != dropped)
    return replace(case, contexts=contexts)


def area(above: list[float], below: list[float]) -> float:
    """How often a number of the first list is larger than one of the second; ties count half."""
    wins = [(one > other) + 0.5 * (one == other) for one in above for other in below]
    return statistics.fmean(wins)


def measure(num_cases: int, num_contexts: int) -> dict[str, Any]:
    """All figures, as the module says."""
    bench = Bench(open_engine("default"))
    cases = generate_cases(num_cases, seed=SEED, num_contexts=num_contexts, kinds=KINDS)
    found = [bench.found(case) for case in cases]
    answered, unanswered = [], []
    for case in cases:
        source = _source(case)
        answered.append(bench.support(_without(case, (source + 1) % num_contexts)))
        unanswered.append(bench.support(_without(case, source))[1])
    right = [candidates for is_good, candidates in answered if is_good]
    return {
        "cases": num_cases,
        "contexts": num_contexts,
        "source found": {key: sum(one[key] for one in found) for key in found[0]},
        "right": len(right),
        "area": {
            key: area([one[key] for one in right], [one[key] for one in unanswered])
            for key in unanswered[0]
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=30)
    parser.add_argument("--contexts", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    text = json.dumps(measure(arguments.cases, arguments.contexts), indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
