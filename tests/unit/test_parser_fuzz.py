"""Whatever strangers write is read, or refused by an error of ours, in bounded memory."""

from random import Random

import pytest

from fedattn.core.errors import InvalidRequestError
from tests.fuzz import parsers
from tests.fuzz.checks import ViolationError
from tests.fuzz.parser import Parser
from tests.fuzz.parsers import all_parsers
from tests.fuzz.text_parsers import uncovered

_EXAMPLES = 40


@pytest.mark.parametrize("name", all_parsers())
def test_damaged_input_is_read_or_refused(name: str) -> None:
    parser, random = all_parsers()[name], Random(0)
    assert all(parser.check(seed) for seed in parser.seeds), "a seed is a valid input"
    for _ in range(_EXAMPLES):
        parser.check(parser.example(random))


def test_every_kind_of_text_has_a_parser_here() -> None:
    assert not uncovered()


def crash(_: bytes) -> None:
    raise IndexError("out of bounds")


def refuse_at_length(_: bytes) -> None:
    raise InvalidRequestError("x" * 30_000)


@pytest.mark.parametrize(
    ("read", "complaint"),
    [
        (crash, "raised IndexError"),
        (lambda _: bytes(8 << 20), "bytes for 4, expected at most"),
        (refuse_at_length, "a message of 30000 characters"),
    ],
)
def test_what_must_not_happen_is_found(
    read: object, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = Parser(name="it", read=read, seeds=(b"seed",))  # type: ignore[arg-type]
    with pytest.raises(ViolationError, match=complaint):
        parser.check(b"seed")
    assert not parsers.run([parser], 1, seed=0)
    assert "again: python -m tests.fuzz.parsers --parser 'it' --input" in capsys.readouterr().out


def test_longer_run_reports_what_it_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert parsers.run([all_parsers()["plan"]], 20, seed=0)
    assert "20 examples" in capsys.readouterr().out
