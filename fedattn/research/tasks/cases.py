"""Cases: one question over private contexts, and files of them."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import check_text
from fedattn.core.unreadable import why_unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question over private contexts, each of which is one contributor's.

    Attributes:
        contexts: a private text each.
        question: what the publisher asks.
        answer: short; right if it occurs in what is decoded, ignoring case.
        kind: what sort of task it is; empty if nobody said.
        length: tokens of each context, about; None if nobody said.
    """

    contexts: tuple[str, ...]
    question: str
    answer: str
    kind: str = ""
    length: int | None = None


def is_right(text: str, case: Case) -> bool:
    """Whether the given answer occurs in a text, ignoring case."""
    return case.answer.strip().lower() in text.lower()


def read_cases(path: Path) -> list[Case]:
    """Read a JSONL file of cases.

    Raises:
        InvalidRequestError: names file, line and what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(
            f"cases {path} cannot be read: {why_unreadable(error)}"
        ) from error
    lines = enumerate(text.split("\n"), start=1)
    numbered = [(number, line) for number, line in lines if line.strip()]
    if not numbered:
        raise InvalidRequestError(f"cases {path}: expected at least one case, got an empty file")
    return [_read_case(line, f"cases {path}, line {number}") for number, line in numbered]


def write_cases(cases: Iterable[Case], path: Path) -> None:
    """Write cases as JSONL, one object a line, as `read_cases` reads them.

    Raises:
        InvalidRequestError: the file cannot be written.
    """
    lines = [json.dumps(asdict(case), ensure_ascii=False) + "\n" for case in cases]
    try:
        path.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(f"cases {path} cannot be written: {error}") from error


def _read_case(line: str, where: str) -> Case:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidRequestError(f"{where}: no JSON: {error}") from error
    if not isinstance(record, dict):
        raise InvalidRequestError(f"{where}: expected an object, got {type(record).__name__}")
    contexts = record.get("contexts")
    if not isinstance(contexts, list) or not all(isinstance(text, str) for text in contexts):
        raise InvalidRequestError(f"{where}: expected contexts, a list of texts")
    for key in ("question", "answer"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            raise InvalidRequestError(f"{where}: expected {key}, a text that is not empty")
    kind, length = record.get("kind", ""), record.get("length")
    if not isinstance(kind, str):
        raise InvalidRequestError(f"{where}: expected kind, a text, got {type(kind).__name__}")
    if length is not None and (type(length) is not int or length < 1):
        raise InvalidRequestError(f"{where}: expected length, tokens a context, got {length!r}")
    for text in (*contexts, record["question"], record["answer"]):
        check_text(where, text)
    return Case(
        contexts=tuple(contexts),
        question=record["question"],
        answer=record["answer"],
        kind=kind,
        length=length,
    )
