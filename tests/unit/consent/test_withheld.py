"""Rows of withheld pieces stay: exactly the tokens that touch one, whatever the tokenizer."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fedattn.core.errors import PolicyRefusedError
from fedattn.model.prompt import PromptTokenizer
from services.participant.policy_rules import Policy
from services.participant.withheld import (
    BUILT_IN,
    MAX_EXPRESSION_LENGTH,
    Pattern,
    compile_pattern,
    withheld_tokens,
)
from tests.harness.tiny import save_tiny_model, word_tokenizer


def found(name: str, text: str) -> list[str]:
    return [text[start:stop] for start, stop in BUILT_IN[name].spans(text)]


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("email", "write to a.b+c@x-y.co.uk, or root@host!", ["a.b+c@x-y.co.uk", "root@host"]),
        ("email", "jörg@müller.example", ["jörg@müller.example"]),
        ("email", f"{'x' * 100}@y.de", [f"{'x' * 100}@y.de"]),
        ("email", "no mail @handle 3@", []),
        ("phone", "call +49 (0)30/901820 now", ["+49 (0)30/901820"]),
        ("phone", "030-901 820, (030) 12 34 56", ["030-901 820", "(030) 12 34 56"]),
        ("phone", "+1.555.123.4567", ["+1.555.123.4567"]),
        ("phone", "on 2026-11-28", ["2026-11-28"]),
        ("phone", "call 12345", []),
        ("phone", "1\n2\n3\n4\n5\n6", []),
        ("number", "4711 or 91.5 or 1,000 or 1'000", ["4711", "91.5", "1,000", "1'000"]),
        ("number", "12 000.50 and 1 000 000", ["12 000.50", "1 000 000"]),
        ("number", "x1234y", ["1234"]),
        ("number", "٣٤٥", ["٣٤٥"]),
        ("number", "3 of 42, 1 2 3", []),
        ("iban", "DE89 3704 0044 0532 0130 00.", ["DE89 3704 0044 0532 0130 00"]),
        ("iban", "de89370400440532013000", ["de89370400440532013000"]),
        ("iban", "NO93 8601 1117 947", ["NO93 8601 1117 947"]),
        ("iban", "AB12 is short", []),
        ("code", "machine K-40, SN-2041-X, A12B", ["K-40", "SN-2041-X", "A12B"]),
        ("code", "PIN 4711; Pin: x", ["PIN 4711;", "Pin: x"]),
        ("code", "the code is 17", ["code is 17"]),
        ("code", "Passwort lautet sesam", ["Passwort lautet sesam"]),
        ("code", "code of conduct, well-known e-mail", []),
    ],
)
def test_built_in_pattern_finds(name: str, text: str, pieces: list[str]) -> None:
    assert found(name, text) == pieces


HOSTILE = {
    "email": "a." * 50_000 + " " + "a@" * 30_000 + "-" * 50_000,
    "phone": "1 1 1 1 a" * 10_000 + "(" * 30_000 + "+1" * 30_000,
    "number": "1 123" * 20_000 + "1 " * 20_000 + "1," * 20_000,
    "iban": "AB12 " * 20_000 + "AB12" * 20_000,
    "code": "code " * 20_000 + "a-" * 30_000 + "code=" * 20_000 + "a" * 50_000,
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_pattern_takes_linear_time(name: str) -> None:
    BUILT_IN[name].spans(HOSTILE[name] * 2)  # within its timeout


def test_tokens_that_share_a_character_are_withheld() -> None:
    text = "call K-40 now"
    offsets = [(0, 4), (5, 7), (7, 9), (10, 13)]
    assert withheld_tokens(text, offsets, [BUILT_IN["code"]]) == (1, 2)
    assert withheld_tokens(text, [(0, 6), (6, 13)], [BUILT_IN["code"]]) == (0, 1)
    assert withheld_tokens(text, [(0, 5), (9, 13)], [BUILT_IN["code"]]) == ()
    assert withheld_tokens(text, offsets, []) == ()
    assert withheld_tokens("", [], [BUILT_IN["code"]]) == ()


def test_token_without_a_character_belongs_to_the_piece_around_it() -> None:
    offsets = [(0, 0), (0, 4), (5, 5), (5, 9), (9, 9)]
    assert withheld_tokens("call K-40 now", offsets, [BUILT_IN["code"]]) == (2, 3)


def test_pieces_of_several_patterns_are_joined() -> None:
    patterns = [compile_pattern("a", "abcd"), compile_pattern("b", "cde"), BUILT_IN["email"]]
    offsets = [(place, place + 1) for place in range(9)]
    assert withheld_tokens("xabcdefgh", offsets, patterns) == (1, 2, 3, 4, 5)


@given(
    text=st.text("ab1 ", max_size=40),
    cuts=st.sets(st.integers(0, 40)),
    expression=st.sampled_from(["a+", "1", "b1", "(?<=a)b", "a|ab1"]),
)
def test_tokens_are_those_of_the_slow_definition(
    text: str, cuts: set[int], expression: str
) -> None:
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    offsets = list(pairwise(borders))
    characters = {
        place for match in re.finditer(expression, text) for place in range(*match.span())
    }
    slow = [i for i, (start, stop) in enumerate(offsets) if characters & set(range(start, stop))]
    patterns = [compile_pattern("own", expression)]
    assert withheld_tokens(text, offsets, patterns) == tuple(slow)


def test_pattern_that_explodes_refuses_and_is_named_in_the_log_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.participant.withheld.TIMEOUT_S", 0.05)
    text = "a" * 5000
    slow = compile_pattern("badge", r"(a|a)*(a|a)*(a|a)*[bc]\1")
    with pytest.raises(PolicyRefusedError, match="takes too long") as refused:
        withheld_tokens(text, [(0, 5000)], [slow])
    assert "badge" not in str(refused.value)
    assert "badge" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("(", "no regular expression: missing )"),
        ("x" * (MAX_EXPRESSION_LENGTH + 1), "at most 1000"),
        ("x*", "fits the empty text"),
        ("", "fits the empty text"),
    ],
)
def test_bad_expression_is_named(expression: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        compile_pattern("badge", expression)


def test_policy_withholds_what_it_names_and_all_of_its_own() -> None:
    policy = Policy(withhold=("email", "badge", "email"), patterns={"badge": r"B\d", "ward": "W"})
    assert [pattern.name for pattern in policy.withheld] == ["email", "badge", "ward"]
    assert all(isinstance(pattern, Pattern) for pattern in policy.withheld)


@pytest.fixture(scope="module")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PromptTokenizer:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_model(folder)
    return PromptTokenizer(AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize(
    "text",
    ["", "  ", "plain", "  two\nlines  ", "jörg@müller.example ruft 0301234567 an 🙂", "a\u0301"],
)
def test_offsets_are_those_of_the_context_tokens(
    byte_tokenizer: PromptTokenizer, text: str
) -> None:
    tokenized, offsets = byte_tokenizer.context_offsets(text)
    assert len(offsets) == len(byte_tokenizer.context(text))
    assert tokenized.strip() == text.strip()
    covered = {place for span in offsets for place in range(*span)}
    assert covered == set(range(len(tokenized)))


def test_all_bytes_of_a_withheld_piece_are_withheld(byte_tokenizer: PromptTokenizer) -> None:
    text = "von jörg@müller.example an"
    tokenized, offsets = byte_tokenizer.context_offsets(text)
    kept = byte_tokenizer.context(text)
    for index in reversed(withheld_tokens(tokenized, offsets, [BUILT_IN["email"]])):
        del kept[index]
    assert byte_tokenizer.decode(kept) == "von  an\n\n"


def test_words_are_withheld_whole() -> None:
    tokenizer = word_tokenizer()
    tokenized, offsets = tokenizer.context_offsets("w1 w22 w3 w44")
    patterns = [compile_pattern("two", r"\d\d")]
    assert withheld_tokens(tokenized, offsets, patterns) == (1, 3)
