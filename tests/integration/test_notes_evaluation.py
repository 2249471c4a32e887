"""Questions over notes, on a tiny model: what takes part is what is computed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fedattn.core.plans import shared_plan
from fedattn.core.sampling import SamplingParams
from fedattn.core.share import Share
from fedattn.model.engine import Engine
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import Prefiller
from fedattn.research.notes.cases import read_notes
from fedattn.research.notes.passages import Selection, topic_of
from fedattn.research.notes.run import NotesRuns, NotesScore, NotesVariant
from fedattn.research.notes.scores import paired_difference, summarize
from tests.harness.tiny import word_tokenizer

QUESTIONS = [
    {"id": "x-1", "question": "w33 w34", "accept": ["w3"], "publisher": "desk", "kind": "fact",
     "needs": [["a", "w33"]]},
    {"id": "x-2", "question": "w98 w99", "accept": ["nothing"], "publisher": "desk",
     "kind": "absent"},
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for node, firsts in {"a": ("w33", "w40"), "b": ("w50", "w60"), "desk": ("w70",)}.items():
        (tmp_path / "x" / node).mkdir(parents=True)
        text = "\n\n".join(f"{first} " + "w1 " * 35 for first in firsts)
        (tmp_path / "x" / node / "a.txt").write_text(text)
    (tmp_path / "x" / "questions.json").write_text(json.dumps(QUESTIONS))
    return tmp_path


@pytest.fixture
def runs(model: LoadedModel) -> NotesRuns:
    engine = Engine(
        name="tiny", model=model, tokenizer=word_tokenizer(), prefiller=Prefiller(model)
    )
    return NotesRuns(engine)


CHOSEN = NotesVariant(
    name="chosen",
    selection=Selection(context_tokens=80),
    plans=shared_plan(range(5)),
    sampling=SamplingParams(max_new_tokens=3),
)


def scores(runs: NotesRuns, folder: Path, variant: NotesVariant) -> list[NotesScore]:
    return list(runs.run(read_notes(folder), variant))


def test_what_fits_takes_part_and_nothing_else(runs: NotesRuns, folder: Path) -> None:
    fact, absent = scores(runs, folder, CHOSEN)
    assert (fact.num_passages, fact.num_silent, fact.is_there) == (1, 1, True)
    assert (absent.num_passages, absent.num_silent, absent.is_there) == (0, 2, False)
    assert fact.kv_bytes > 0 == absent.kv_bytes


def test_whole_texts_and_the_publisher_alone_are_beside(runs: NotesRuns, folder: Path) -> None:
    whole = replace(CHOSEN, selection=Selection())
    assert [score.num_passages for score in scores(runs, folder, whole)] == [5, 5]
    alone = scores(runs, folder, replace(CHOSEN, alone=True))
    assert [score.kv_bytes for score in alone] == [0, 0]


def test_contexts_that_stay_are_computed_once(runs: NotesRuns, folder: Path) -> None:
    first, second = scores(runs, folder, replace(CHOSEN, selection=Selection()))
    assert first.prefill_s is not None
    assert second.prefill_s is None


def test_sums_count_what_can_be_answered_and_pairs_compare_it(
    runs: NotesRuns, folder: Path
) -> None:
    own = scores(runs, folder, CHOSEN)
    row = summarize(own)
    assert (row["questions"], row["absent"], row["there"]) == (1, 1, 1)
    right = [replace(score, is_right=True) for score in own]
    wrong = [replace(score, is_right=False) for score in own]
    assert paired_difference(right, wrong) == (1.0, 0.0)


def test_nothing_known_is_the_owners_order(runs: NotesRuns, folder: Path) -> None:
    blind = replace(CHOSEN, selection=Selection(context_tokens=80, share=Share.NOTHING))
    assert all(score.num_passages > 0 for score in scores(runs, folder, blind))


def test_a_topic_holds_no_order_and_no_number() -> None:
    assert (
        topic_of("At which pier does the Aurora lie since 4 May?") == "Aurora does pier since which"
    )
