"""Worlds: long contexts full of facts that can be taken for each other, each of them asked once."""

import re
from collections import Counter
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedattn.cli.tasks import TaskOptions, read_task
from fedattn.core.errors import InvalidRequestError
from fedattn.research.tasks.cases import Case, read_cases, write_cases
from fedattn.research.tasks.gsm8k import gsm8k_task
from fedattn.research.tasks.retrieval import TWO_FACT, TWO_HOP
from fedattn.research.tasks.task import Task
from fedattn.research.tasks.templates import LOOKUPS, TWO_FACTS, TWO_HOPS
from fedattn.research.tasks.worlds import WorldShape, generate_worlds

LONGEST_FACT = 14  # words
FACTS = tuple(
    re.compile(re.escape(one.fact).replace(r"\{subject\}", "(.+)").replace(r"\{value\}", ".+"))
    for ones in LOOKUPS.values()
    for one in ones
)


def count_words(text: str) -> int:
    return len(text.split())


def worlds(length: int, num_worlds: int, *, seed: int = 0, num_contexts: int = 3) -> list[Case]:
    shape = WorldShape(length=length, num_contexts=num_contexts)
    return generate_worlds(num_worlds * shape.num_questions, shape, count_words, seed=seed)


def facts(text: str) -> list[str]:
    return re.findall(r"[^.]+(?:\.\d[^.]*)?\.", text)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([40, 160, 500]), st.integers(2, 4))
def test_an_answer_stands_in_one_place_and_not_in_its_question(
    seed: int, length: int, num_contexts: int
) -> None:
    for case in worlds(length, 1, seed=seed, num_contexts=num_contexts):
        assert len(case.contexts) == num_contexts
        assert is_fair(case)


def is_fair(case: Case) -> bool:
    times = "\n".join(case.contexts).lower().count(case.answer.lower())
    return times == 1 and case.answer.lower() not in case.question.lower()


def test_what_long_contexts_say_twice_is_not_asked() -> None:
    """Names of people are subjects too, and a long number may hold a short one."""
    shape = WorldShape(length=1200, num_questions=50)
    assert all(map(is_fair, generate_worlds(1000, shape, count_words)))


@pytest.mark.parametrize("length", [40, 160, 1200])
def test_every_context_is_as_long_as_asked_within_a_sentence(length: int) -> None:
    for case in worlds(length, 3):
        assert case.length == length
        assert all(abs(count_words(text) - length) <= LONGEST_FACT for text in case.contexts)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_said_twice_of_a_subject(seed: int) -> None:
    """Chains say some things in the same words as lookups do."""
    for case in worlds(500, 1, seed=seed)[:1]:
        said = [fact.strip() for text in case.contexts for fact in facts(text)]
        for form in FACTS:
            subjects = Counter(found.group(1) for one in said if (found := form.fullmatch(one)))
            assert not [subject for subject, times in subjects.items() if times > 1]


def test_a_context_says_several_things_of_a_sort() -> None:
    for case in worlds(140, 3):
        for text in case.contexts:
            forms = [
                next((f for f in FACTS if f.fullmatch(one.strip())), None) for one in facts(text)
            ]
            times = Counter(form for form in forms if form is not None)
            assert sum(number >= 2 for number in times.values()) >= len(times) - 1


def test_long_worlds_ask_for_one_chain_of_either_kind_across_contexts() -> None:
    for _, world in groupby(worlds(160, 4), key=lambda case: case.contexts):
        asked = list(world)
        assert len(asked) == 10
        kinds = Counter(case.kind for case in asked)
        assert (kinds[TWO_HOP], kinds[TWO_FACT]) == (1, 1)
        for case in asked:
            if case.kind in {TWO_HOP, TWO_FACT}:
                assert len(places_of_chain(case)) == 2


def places_of_chain(case: Case) -> set[int]:
    """Contexts of the fact that says the answer, and of the one that leads there."""
    for template in (*TWO_HOPS, *TWO_FACTS):
        form = re.escape(template.question).replace(r"\{subject\}", "(.+)")
        if found := re.fullmatch(form, case.question):
            lead = template.first.format(subject=found.group(1), link="\n").split("\n")[0]
            wanted = (lead, case.answer)
            return {[text in one for one in case.contexts].index(True) for text in wanted}
    raise AssertionError(case.question)


def test_short_worlds_have_no_room_for_chains() -> None:
    assert not {TWO_HOP, TWO_FACT} & {case.kind for case in worlds(40, 5)}


def test_questions_of_a_world_lie_side_by_side_and_differ() -> None:
    cases = worlds(160, 4)
    assert Task(name="", cases=tuple(cases)).worlds() == sorted([0, 1, 2, 3] * 10)
    assert len({case.question for case in cases[:10]}) == 10


def test_a_shorter_list_is_the_beginning_of_a_longer_one() -> None:
    shape = WorldShape(length=60, num_questions=4)
    longer = generate_worlds(11, shape, count_words, seed=5)
    assert generate_worlds(7, shape, count_words, seed=5) == longer[:7]
    assert not set(longer) & set(generate_worlds(11, shape, count_words, seed=6))


def test_a_world_is_asked_no_more_than_it_knows() -> None:
    cases = generate_worlds(30, WorldShape(length=20, num_questions=30), count_words)
    assert len(cases) == 30
    assert len({case.contexts for case in cases}) > 3


def test_a_length_survives_a_file(tmp_path: Path) -> None:
    cases = worlds(40, 1)
    write_cases(cases, tmp_path / "cases.jsonl")
    assert read_cases(tmp_path / "cases.jsonl") == cases


def test_exemplars_that_all_problems_share_make_no_world_of_them(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text('{"question": "a", "answer": "1 #### 1"}\n' * 3)
    assert gsm8k_task(path, 3).worlds() == [0, 1, 2]


def test_more_than_there_are_words_for_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="need more facts than there are words for"):
        worlds(3000, 1, num_contexts=8)


@pytest.mark.parametrize("arguments", [{"length": 5}, {"length": 50, "num_questions": 0}])
def test_a_world_that_cannot_be_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(InvalidRequestError, match="expected"):
        WorldShape(**arguments)


def options(name: str = "retrieval", cases: Path | None = None, **changes: int) -> TaskOptions:
    numbers = {"num_cases": 4, "num_contexts": 3, "num_shots": 2, "seed": 0, "num_questions": 2}
    return TaskOptions(name=name, cases=cases, lengths=(60, 20, 60), **numbers | changes)


def test_so_many_cases_are_made_of_each_length() -> None:
    task = read_task(options(), lambda: count_words)
    assert [case.length for case in task.cases] == [20] * 4 + [60] * 4
    assert task.worlds() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(("name", "cases"), [("labels", None), ("retrieval", Path("x"))])
def test_a_length_of_what_has_its_own_is_refused(name: str, cases: Path | None) -> None:
    with pytest.raises(InvalidRequestError, match="--length is of generated retrieval cases"):
        options(name, cases)
