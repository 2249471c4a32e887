"""The evaluation notes: a text of some node answers each question, and the answer is checked."""

import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.codebase import ROOT

NOTES = ROOT / "benchmarks" / "notes"
DOMAINS = sorted(path.parent.name for path in NOTES.glob("*/questions.json"))
KINDS = {"fact", "numeric", "table", "two-hop", "absent", "cause", "name", "day"}
MAX_FILE_BYTES = 64 * 1024
# Japanese is written without spaces; two of its letters are about a word.
WORD = re.compile(r"[\u3041-\u30ff\u4e00-\u9fff]{1,2}|[^\s\u3041-\u30ff\u4e00-\u9fff]+")


class Question(NamedTuple):
    """One object of a domain's questions.json; `needs` pairs a node with a part of one line."""

    id: str
    question: str
    accept: list[str]
    publisher: str
    kind: str
    needs: list[tuple[str, str]]


@cache
def questions_of(domain: str) -> tuple[Question, ...]:
    listed = json.loads((NOTES / domain / "questions.json").read_text("utf-8"))
    return tuple(Question(**entry) for entry in listed)


@cache
def nodes_of(domain: str) -> dict[str, list[Path]]:
    """Node id to its files."""
    folders = sorted(path for path in (NOTES / domain).iterdir() if path.is_dir())
    return {folder.name: sorted(folder.iterdir()) for folder in folders}


def lines_of(domain: str, node: str) -> list[str]:
    return [
        line for path in nodes_of(domain)[node] for line in path.read_text("utf-8").splitlines()
    ]


QUESTIONS = [
    pytest.param(domain, question, id=question.id)
    for domain in DOMAINS
    for question in questions_of(domain)
]
every_domain = pytest.mark.parametrize("domain", DOMAINS)
every_question = pytest.mark.parametrize(("domain", "question"), QUESTIONS)


@every_domain
def test_domain_has_three_to_five_nodes(domain: str) -> None:
    assert 3 <= len(nodes_of(domain)) <= 5


@every_domain
def test_node_holds_text_of_a_size_that_nodes_have(domain: str) -> None:
    words = {node: len(WORD.findall(" ".join(lines_of(domain, node)))) for node in nodes_of(domain)}
    assert {node: count for node, count in words.items() if not 100 <= count <= 3500} == {}


@every_domain
def test_no_file_is_larger_than_64_kib(domain: str) -> None:
    files = [path for path in (NOTES / domain).rglob("*") if path.is_file()]
    assert [path.name for path in files if path.stat().st_size > MAX_FILE_BYTES] == []


def test_question_ids_are_unique() -> None:
    ids = [question.id for domain in DOMAINS for question in questions_of(domain)]
    assert len(ids) == len(set(ids)) > 0


@every_question
def test_publisher_is_a_node_of_the_domain(domain: str, question: Question) -> None:
    assert question.publisher in nodes_of(domain)


@every_question
def test_accepted_answers_are_patterns_that_an_empty_answer_fails(
    domain: str, question: Question
) -> None:
    patterns = [re.compile(pattern, re.IGNORECASE) for pattern in question.accept]
    assert patterns
    assert not any(pattern.search("") for pattern in patterns)


@every_question
def test_what_the_answer_needs_stands_in_one_line_of_its_node(
    domain: str, question: Question
) -> None:
    absent = [
        (node, part)
        for node, part in question.needs
        if not any(part in line for line in lines_of(domain, node))
    ]
    assert absent == []


@every_question
def test_only_a_question_without_an_answer_needs_no_text(domain: str, question: Question) -> None:
    assert question.kind in KINDS
    assert (question.kind == "absent") == (not question.needs)


@every_question
def test_two_hops_lead_through_two_nodes(domain: str, question: Question) -> None:
    if question.kind == "two-hop":
        assert len({node for node, _ in question.needs}) >= 2
