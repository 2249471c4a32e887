"""Few-shot tasks: made-up labels, and GSM8K from a file."""

import json
from pathlib import Path

import pytest

from fedattn.core.errors import InvalidRequestError
from fedattn.research.tasks.gsm8k import final_number, gsm8k_task
from fedattn.research.tasks.labels import labels_task
from fedattn.research.tasks.retrieval import generate_cases
from fedattn.research.tasks.task import Task


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 42.", 42),
        (" 3 + 4 = 7. The answer is 7", 7),
        ("The answer is 20,800 dollars", 20800),
        ("The answer is $1,234.50.", 1234.5),
        ("The answer is -3.", -3),
        ("It is 7.", None),
        ("The answer is seven.", None),
    ],
)
def test_number_after_the_answer_is(text: str, number: float | None) -> None:
    assert final_number(text) == number


def test_problems_of_a_file_become_cases(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    answer = "Two boxes are 2 * 10 = <<2*10=20>>20.\nIn all 20,000 + 800. #### 20,800"
    path.write_text(json.dumps({"question": "How many? ", "answer": answer}) + "\n\n")
    task = gsm8k_task(path, 5, num_shots=2)
    (case,) = task.cases
    assert len(case.contexts) == 2
    assert case.question == "Question: How many?\nLet's think step by step."
    assert case.answer.endswith("= 20. In all 20,000 + 800. The answer is 20,800.")
    assert task.is_right(" so. The answer is 20800.", case)
    assert not task.is_right(" The answer is 20.\n\nQuestion: x The answer is 20,800.", case)
    for text in case.contexts:
        assert final_number(text) is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected at least one, got none"),
        ("{}\n", "line 1: expected an object with question and answer"),
        ('{"question": "a", "answer": "7"}\n', "line 1: expected an answer that ends with ####"),
    ],
)
def test_bad_problem_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidRequestError, match=message):
        gsm8k_task(path, 1)
    with pytest.raises(InvalidRequestError, match="shots: expected 1 to 8, got 9"):
        gsm8k_task(path, 1, num_shots=9)


def test_labels_can_be_learnt_from_the_exemplars_alone() -> None:
    task = labels_task(20, seed=1, num_exemplars=6)
    assert task.cases == labels_task(20, seed=1, num_exemplars=6).cases
    for case in task.cases:
        labels = {text.split(" -> ")[1] for text in case.contexts}
        assert len(case.contexts) == 6
        assert len(labels) == 2
        assert case.answer.strip() in labels
        assert case.question.removesuffix(" ->") not in " ".join(case.contexts).split()
        assert task.is_right(case.answer + "\nhammer ->", case)
        assert not task.is_right("\n" + case.answer, case)


def test_retrieval_answers_may_stand_anywhere() -> None:
    (case,) = generate_cases(1)
    task = Task(name="retrieval", cases=(case,))
    assert task.is_right(f"It is {case.answer.upper()}.", case)
