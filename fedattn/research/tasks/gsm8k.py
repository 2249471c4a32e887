"""GSM8K with few-shot chain of thought (paper's prompt format); exemplars are our own."""

import json
import re
from itertools import islice
from pathlib import Path

from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import check_text
from fedattn.core.unreadable import why_unreadable
from fedattn.research.tasks.cases import Case
from fedattn.research.tasks.task import Task

_CUE = "Let's think step by step."
_MARK = "The answer is"
_EXEMPLARS = (
    ("A shelf holds 6 boxes, and each box holds 8 pens. 10 pens are sold. How many are left?",
     "6 boxes of 8 pens are 6 * 8 = 48 pens. After 10 are sold, 48 - 10 = 38 are left.", 38),
    ("Mara walks 3 km on each of 5 days, and 4 km on Saturday. How far does she walk?",
     "On 5 days she walks 5 * 3 = 15 km. With Saturday it is 15 + 4 = 19 km.", 19),
    ("A ticket costs 12 dollars. A family buys 4 and pays with 60 dollars. How much is returned?",
     "4 tickets cost 4 * 12 = 48 dollars. 60 - 48 = 12 dollars are returned.", 12),
    ("A tank holds 90 litres. It is two thirds full, then 15 litres are used. What remains?",
     "Two thirds of 90 are 90 * 2 / 3 = 60 litres. 60 - 15 = 45 litres remain.", 45),
    ("Ivo has 7 red and 9 blue stones. He gives half of all to Lea. How many has he then?",
     "He has 7 + 9 = 16 stones. Half of 16 is 8, so 16 - 8 = 8 stones stay with him.", 8),
    ("A baker makes 24 rolls an hour for 3 hours and sells 50. How many rolls are not sold?",
     "In 3 hours the baker makes 24 * 3 = 72 rolls. 72 - 50 = 22 rolls are not sold.", 22),
    ("A book has 150 pages. Tom reads 20 pages a day for 6 days. How many pages are left?",
     "In 6 days Tom reads 20 * 6 = 120 pages. 150 - 120 = 30 pages are left.", 30),
    ("Each of 8 rows has 11 seats, and 13 seats are taken. How many seats are free?",
     "There are 8 * 11 = 88 seats. 88 - 13 = 75 seats are free.", 75),
)  # fmt: skip
MAX_SHOTS = len(_EXEMPLARS)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def gsm8k_task(path: Path | None, count: int, *, num_shots: int = 4) -> Task:
    """The first `count` problems of a JSONL file with `question` and `answer`, or of the hub.

    Raises:
        InvalidRequestError: the file cannot be read, or the hub not be reached.
    """
    if not 1 <= num_shots <= MAX_SHOTS:
        raise InvalidRequestError(f"shots: expected 1 to {MAX_SHOTS}, got {num_shots}")
    problems = _read_file(path) if path is not None else _read_hub()
    exemplars = tuple(
        f"Question: {question}\n{_CUE} {steps} {_MARK} {answer}.\n\n"
        for question, steps, answer in _EXEMPLARS[:num_shots]
    )
    return Task(
        name=f"gsm8k, {num_shots} shots",
        cases=tuple(_to_case(exemplars, *one) for one in islice(problems, count)),
        is_chat=False,
        max_new_tokens=256,
        stop="Question:",
        grade=_same_number,
        is_few_shot=True,
    )


def final_number(text: str) -> float | None:
    """The number after "The answer is"; "20,800" is one number. None if there is none."""
    _, mark, after = text.partition(_MARK)
    found = _NUMBER.search(after) if mark else None
    return float(found.group().replace(",", "").rstrip(".")) if found else None


def _same_number(text: str, case: Case) -> bool:
    number = final_number(text)
    return number is not None and number == final_number(case.answer)


def _to_case(exemplars: tuple[str, ...], question: str, answer: str) -> Case:
    steps, _, number = answer.partition("####")
    steps = " ".join(re.sub(r"<<.*?>>", "", steps).split())
    return Case(
        contexts=exemplars,
        question=f"Question: {question.strip()}\n{_CUE}",
        answer=f" {steps} {_MARK} {number.strip()}.",
        kind="gsm8k",
    )


def _read_file(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(
            f"problems {path} cannot be read: {why_unreadable(error)}"
        ) from error
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            question, answer = str(record["question"]), str(record["answer"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequestError(
                f"problems {path}, line {number}: expected an object with question and answer"
            ) from error
        if "####" not in answer:
            raise InvalidRequestError(
                f"problems {path}, line {number}: expected an answer that ends with #### NUMBER"
            )
        for text in (question, answer):
            check_text(f"problems {path}, line {number}", text)
        problems.append((question, answer))
    if not problems:
        raise InvalidRequestError(f"problems {path}: expected at least one, got none")
    return problems


def _read_hub() -> list[tuple[str, str]]:
    try:
        from datasets import load_dataset  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise InvalidRequestError(
            "GSM8K from the hub needs the package datasets (pip install datasets); "
            "or give a local file with --cases"
        ) from error
    try:
        rows = load_dataset("openai/gsm8k", "main", split="test")
    except (OSError, ValueError) as error:
        raise InvalidRequestError(
            f"GSM8K cannot be loaded from the hub: {str(error)[:200]}; give a file with --cases"
        ) from error
    return [(row["question"], row["answer"]) for row in rows]
