"""The wire schema is its own documentation."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

PROTOS = sorted((Path(__file__).parents[2] / "proto").rglob("*.proto"))
FIELD = re.compile(r"\s+(?:repeated )?[\w.]+ \w+ = \d+;")


@pytest.mark.parametrize("path", PROTOS, ids=lambda path: path.name)
def test_every_field_has_a_comment_above_it(path: Path) -> None:
    lines = path.read_text().splitlines()
    fields = [(before, line) for before, line in pairwise(lines) if FIELD.fullmatch(line)]
    assert fields
    bare = [line.strip() for before, line in fields if not before.strip().startswith("//")]
    assert bare == []
