"""Evaluation on a tiny model: questions of one world share rows and change no score."""

from typing import Any

import pytest

from fedattn.cli.scores import Scores
from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.plans import shared_plan
from fedattn.core.spans import Member
from fedattn.model.prefill import Prefiller
from fedattn.research.evaluate.runs import Asked, InProcessRuns, PromptSegmentation, Variant, ends
from fedattn.research.tasks.cases import Case
from fedattn.research.tasks.task import Task
from tests.harness.tiny import NUM_LAYERS, tiny_model, word_tokenizer, words

CONTEXTS = (words(3, 9), words(40, 7))
VARIANTS = [
    *ends(NUM_LAYERS),
    Variant(
        name="some",
        plans=shared_plan([1, 3]),
        compression=Compression(codec=codec_by_name("int8")),
        asked=Asked(plan="1,3"),
    ),
]


def case(first: int, contexts: tuple[str, ...] = CONTEXTS, length: int | None = None) -> Case:
    return Case(
        contexts=contexts, question=words(first, 4), answer=words(first + 3, 3), length=length
    )


def task(*cases: Case) -> Task:
    return Task(name="task", cases=cases, max_new_tokens=5)


@pytest.fixture
def prefiller() -> Prefiller:
    return Prefiller(tiny_model("llama"))


@pytest.fixture
def runs(prefiller: Prefiller) -> InProcessRuns:
    return InProcessRuns(prefiller, word_tokenizer(), PromptSegmentation())


def test_a_world_scores_as_its_cases_do_alone(runs: InProcessRuns) -> None:
    asked = task(case(50), case(61), case(72))
    together = runs.run_world(asked, asked.cases, VARIANTS)
    for at, one in enumerate(asked.cases):
        alone = runs.run_world(asked, [case(5, (words(9, 4),)), one], VARIANTS)[1]
        assert together[at].keys() == alone.keys()
        for name, score in alone.items():
            assert score.text == together[at][name].text
            assert score.nll == pytest.approx(together[at][name].nll, abs=1e-5)
            assert score.divergence == pytest.approx(together[at][name].divergence, abs=1e-5)
            assert score.kv_bytes == together[at][name].kv_bytes


def test_rows_of_a_world_are_computed_once_a_variant(
    runs: InProcessRuns, prefiller: Prefiller, monkeypatch: pytest.MonkeyPatch
) -> None:
    contribute, spans = prefiller.contribute, []

    def counted(member: Member, *rest: Any) -> None:
        spans.append(member)
        contribute(member, *rest)

    monkeypatch.setattr(prefiller, "contribute", counted)
    asked = task(case(50), case(61), case(72))
    runs.run_world(asked, asked.cases, VARIANTS)
    assert len(spans) == len(CONTEXTS) * len(VARIANTS)


def test_results_are_told_by_length_and_in_pairs(runs: InProcessRuns) -> None:
    longer = (words(5, 12), words(60, 12))
    asked = task(case(50, length=8), case(61, length=8), case(50, longer, 12))
    scored = [
        *runs.run_world(asked, asked.cases[:2], VARIANTS),
        *runs.run_world(asked, asked.cases[2:], VARIANTS),
    ]
    scores = Scores(task=asked, variants=VARIANTS, baseline="some", cases=scored)
    told = scores.to_json()
    assert told["baseline"] == "some"
    central, alone, some = told["setups"]
    assert some["paired"] is None
    assert central["paired"]["cases"] == 3
    assert central["paired"]["worlds"] == 2
    assert [(one["length"], one["cases"]) for one in alone["lengths"]] == [(8, 2), (12, 1)]
    expected = alone["lengths"][1]["nll"] - some["lengths"][1]["nll"]
    assert alone["lengths"][1]["paired"]["nll"]["mean"] == pytest.approx(expected)
    assert [(one["length"], one["world"]) for one in alone["results"]] == [(8, 0), (8, 0), (12, 1)]
    assert scores.means().row_count == 9
    assert scores.pairs().row_count == 6
