"""Questions over notes of several nodes: a folder a domain, a folder a node in it.

DOMAIN/questions.json       a list of questions
DOMAIN/NODE/...             the node's notes, in any format that nodes read
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fedattn.core.errors import InvalidRequestError

QUESTIONS_FILE = "questions.json"


class Question(BaseModel):
    """One question as its file has it.

    Attributes:
        id: unique.
        question: as a person asks it.
        accept: regular expressions; an answer in which one is found is right. Case does not count.
        publisher: node that asks.
        kind: fact, numeric, table, two-hop, absent and the like.
        needs: node and verbatim text that carries the answer; none if no text does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    question: str
    accept: Annotated[tuple[str, ...], Field(min_length=1)]
    publisher: str
    kind: str
    needs: tuple[tuple[str, str], ...] = ()

    def is_right(self, answer: str) -> bool:
        """Whether an answer is accepted."""
        return any(re.search(pattern, answer, re.IGNORECASE) for pattern in self.accept)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotesCase:
    """A question and the nodes it is asked of.

    Attributes:
        domain: name of the folder.
        question: with its accepted answers.
        folders: of all nodes, the publisher's too, by id and in order.
    """

    domain: str
    question: Question
    folders: Mapping[str, Path]


def read_notes(root: Path) -> list[NotesCase]:
    """All questions below a folder, those of one domain and publisher behind each other.

    Raises:
        InvalidRequestError: there are none, or a file of questions cannot be read.
    """
    cases: list[NotesCase] = []
    for path in sorted(root.glob(f"*/{QUESTIONS_FILE}")):
        folders = {one.name: one for one in sorted(path.parent.iterdir()) if one.is_dir()}
        for question in _read_questions(path):
            if question.publisher not in folders:
                raise InvalidRequestError(
                    f"{path}: {question.id} is asked by {question.publisher}, expected one of "
                    f"{', '.join(folders)}"
                )
            cases.append(NotesCase(domain=path.parent.name, question=question, folders=folders))
    if not cases:
        raise InvalidRequestError(
            f"no notes in {root}: expected folders with a {QUESTIONS_FILE} and a folder a node"
        )
    return sorted(cases, key=lambda case: (case.domain, case.question.publisher))


def _read_questions(path: Path) -> list[Question]:
    try:
        return TypeAdapter(list[Question]).validate_python(json.loads(path.read_bytes()))
    except (ValueError, ValidationError) as error:
        raise InvalidRequestError(f"{path} cannot be read: {str(error)[:500]}") from error
