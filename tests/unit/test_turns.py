"""Earlier turns: their limits, their way over the wire, their place in a prompt."""

from pathlib import Path

import pytest

from fedattn.core.errors import InvalidRequestError
from fedattn.core.turns import MAX_TURNS, MAX_TURNS_LENGTH, Speaker, Turn
from fedattn.model.loading import load_tokenizer
from fedattn.model.prepare import prepare_model
from fedattn.model.prompt import PromptTokenizer
from fedattn.rest.faults import checked
from fedattn.rest.fields import TurnBody
from fedattn.rest.query import QueryBody
from fedattn.wire.turns import turns_from_wire, turns_to_wire
from fedattn.wire.v1 import participant_pb2 as pb
from tests.harness.tiny import save_tiny_model


def turn(speaker: str, text: str) -> TurnBody:
    return TurnBody(speaker=Speaker(speaker), text=text)


TURNS = (turn("system", "Be terse."), turn("user", "Who?"), turn("assistant", ""))
TOO_MANY = [
    [turn("user", "x")] * (MAX_TURNS + 1),
    [turn("user", "x" * (MAX_TURNS_LENGTH // 2 + 1))] * 2,
]


def test_turns_come_back_from_the_wire() -> None:
    back = turns_from_wire(turns_to_wire(TURNS))
    assert back == tuple(Turn(speaker=one.speaker, text=one.text) for one in TURNS)


@pytest.mark.parametrize("turns", TOO_MANY, ids=["many", "long"])
def test_too_much_is_refused_at_both_doors(turns: list[TurnBody]) -> None:
    with pytest.raises(InvalidRequestError, match="turns"):
        turns_from_wire(turns_to_wire(turns))
    with pytest.raises(InvalidRequestError, match="turns"):
        checked(QueryBody, question="x", turns=turns)


def test_a_turn_of_nobody_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="speaker 0"):
        turns_from_wire([pb.Turn(text="x")])


def test_a_turn_never_shows_its_text() -> None:
    assert "Who" not in repr(TURNS)


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> PromptTokenizer:
    folder: Path = tmp_path_factory.mktemp("tiny")
    save_tiny_model(folder)
    return PromptTokenizer(load_tokenizer(prepare_model(str(folder), cache_dir=folder / "c")), "S")


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ((), "Why?\n<assistant>"),
        (TURNS[:1], "Be terse.\n\nWhy?\n<assistant>"),
        (TURNS[1:], "Who?\n<assistant>\n<user>Why?\n<assistant>"),
        (
            (TURNS[0], TURNS[1], turn("assistant", "Me."), turn("system", "Now sing.")),
            "Be terse.\n\nWho?\n<assistant>Me.\n<user>Now sing.\n\nWhy?\n<assistant>",
        ),
        ((turn("assistant", "Hello."),), "\n<assistant>Hello.\n<user>Why?\n<assistant>"),
    ],
)
def test_turns_stand_in_the_marks_of_the_template(
    turns: tuple[Turn, ...], expected: str, prompt: PromptTokenizer
) -> None:
    assert prompt.decode(prompt.question("Why?", turns=turns)) == expected
    assert prompt.decode(prompt.prefix()) == "<system>S\n<user>"
