"""Cases: generated ones measure what they should, files of them say what is wrong."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.errors import InvalidRequestError
from fedattn.research.tasks.cases import Case, read_cases, write_cases
from fedattn.research.tasks.retrieval import KINDS, generate_cases


@given(st.integers(0, 2**32), st.integers(2, 5))
def test_answer_stands_in_exactly_one_context_and_not_in_the_question(
    seed: int, num_contexts: int
) -> None:
    for case in generate_cases(len(KINDS), seed=seed, num_contexts=num_contexts):
        assert len(case.contexts) == num_contexts
        assert sum(case.answer.lower() in text.lower() for text in case.contexts) == 1
        assert case.answer.lower() not in case.question.lower()


def test_same_seed_gives_the_same_cases_and_another_seed_others() -> None:
    assert generate_cases(30, seed=1) == generate_cases(30, seed=1)
    assert not set(generate_cases(30, seed=1)) & set(generate_cases(30, seed=2))


def test_every_kind_occurs_equally_often() -> None:
    kinds = [case.kind for case in generate_cases(5 * len(KINDS), seed=3)]
    assert {kinds.count(kind) for kind in KINDS} == {5}


def test_answer_is_not_always_in_the_same_place() -> None:
    places = {
        [case.answer in text for text in case.contexts].index(True)
        for case in generate_cases(40, seed=4)
    }
    assert places == {0, 1, 2}


def test_cases_survive_a_file(tmp_path: Path) -> None:
    cases = generate_cases(12, seed=5)
    write_cases(cases, tmp_path / "cases.jsonl")
    assert read_cases(tmp_path / "cases.jsonl") == cases


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2: no JSON"),
        ("[]", "line 2: expected an object, got list"),
        ('{"contexts": "a", "question": "b", "answer": "c"}', "expected contexts"),
        ('{"contexts": [], "question": " ", "answer": "c"}', "expected question"),
    ],
)
def test_bad_line_is_named_with_its_number(line: str, complaint: str, tmp_path: Path) -> None:
    good = json.dumps({"contexts": ["a"], "question": "b", "answer": "c"})
    path = tmp_path / "cases.jsonl"
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(InvalidRequestError, match=complaint):
        read_cases(path)


@pytest.mark.parametrize(
    "arguments", [{"count": 0}, {"count": 1, "num_contexts": 0}, {"count": 1, "kinds": ("riddle",)}]
)
def test_generator_refuses_what_it_cannot_do(arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError):
        generate_cases(**arguments)  # type: ignore[arg-type]


def test_case_without_a_kind_has_none(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text('{"contexts": ["a"], "question": "b", "answer": "c"}\n')
    assert read_cases(path) == [Case(contexts=("a",), question="b", answer="c")]
