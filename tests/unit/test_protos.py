"""The wire schema is its own documentation."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from fedattn.wire.v1 import aggregator_pb2

PROTOS = sorted((Path(__file__).parents[2] / "proto").rglob("*.proto"))
FIELD = re.compile(r"\s+(?:repeated )?[\w.]+ \w+ = \d+;")


@pytest.mark.parametrize("path", PROTOS, ids=lambda path: path.name)
def test_every_field_has_a_comment_above_it(path: Path) -> None:
    lines = path.read_text().splitlines()
    fields = [(before, line) for before, line in pairwise(lines) if FIELD.fullmatch(line)]
    assert fields
    bare = [line.strip() for before, line in fields if not before.strip().startswith("//")]
    assert bare == []


def test_chunks_are_numbered_alike_in_both_directions() -> None:
    sent = aggregator_pb2.ExchangeRequest.DESCRIPTOR.fields_by_name["chunk"]
    passed_on = aggregator_pb2.ExchangeResponse.DESCRIPTOR.fields_by_name["chunk"]
    assert sent.number == passed_on.number
    assert sent.message_type is passed_on.message_type
