"""Text of an answer, token by token: against decoding the whole, and stop strings."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteFallback, Fuse, Replace, Sequence, Strip
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from fedattn.model.text import Detokenizer, TextStream, whole_text

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
STOP_LETTERS = "ab."
HALF = "a\N{LATIN SMALL LETTER A WITH CIRCUMFLEX}"  # a token: "a", then byte 0xE2 of a character


def letter_token(letter: str) -> int:
    """Of BYTE_LEVEL."""
    token = BYTE_LEVEL.token_to_id(letter)
    assert token is not None
    return token


def byte_level() -> Tokenizer:
    """One token a byte, HALF, and a control token last."""
    letters = sorted(ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    vocabulary[HALF] = len(vocabulary)
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken("<end>")])
    return tokenizer


def byte_fallback() -> Tokenizer:
    """Words as Llama 2 has them, and bytes for the rest."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁a": 256, "b": 257}
    tokenizer = Tokenizer(BPE(vocabulary, [], byte_fallback=True))
    tokenizer.decoder = Sequence([Replace("▁", " "), ByteFallback(), Fuse(), Strip(" ", 1, 0)])
    return tokenizer


BYTE_LEVEL, BYTE_FALLBACK = byte_level(), byte_fallback()


def byte_tokens(text: str) -> list[int]:
    """Of BYTE_FALLBACK, where a byte's token is its number."""
    return list(text.encode())


def pieces(tokenizer: Tokenizer, token_ids: list[int]) -> Iterator[str]:
    detokenizer = Detokenizer(tokenizer)
    yield from map(detokenizer.push, token_ids)
    yield detokenizer.finish()


@given(st.lists(st.integers(0, BYTE_LEVEL.get_vocab_size() - 1), max_size=40))
def test_pieces_of_any_tokens_are_the_whole_text(token_ids: list[int]) -> None:
    assert "".join(pieces(BYTE_LEVEL, token_ids)) == whole_text(BYTE_LEVEL, token_ids)


@given(st.text(max_size=12))
def test_pieces_of_a_text_are_that_text(text: str) -> None:
    """Of any text that ends in a character of its own."""
    text = text.rstrip(REPLACEMENT)
    token_ids = byte_tokens(text)
    joined = "".join(pieces(BYTE_FALLBACK, [257, *token_ids]))
    assert joined == whole_text(BYTE_FALLBACK, [257, *token_ids]) == f"b{text}"


@given(st.lists(st.integers(0, 257), max_size=40))
def test_bytes_that_are_no_text_end_nothing(token_ids: list[int]) -> None:
    """What was handed out would read otherwise by now: it stays, and the text goes on."""
    text = "".join(pieces(BYTE_FALLBACK, [*token_ids, 257]))
    assert text.endswith("b")


def test_a_character_comes_with_its_last_token() -> None:
    token_ids = byte_tokens("é")
    assert list(pieces(BYTE_FALLBACK, [257, *token_ids, 256])) == ["b", "", "é", " a", ""]


@pytest.mark.parametrize("cut", [1, 2])
def test_an_answer_cut_inside_a_character_ends_before_it(cut: int) -> None:
    token_ids = byte_tokens("好")
    assert "".join(pieces(BYTE_FALLBACK, [257, *token_ids[:cut]])) == "b"
    assert whole_text(BYTE_FALLBACK, [257, *token_ids[:cut]]) == "b"


def test_a_token_that_ends_inside_a_character_keeps_what_is_whole() -> None:
    half = letter_token(HALF)
    assert "".join(pieces(BYTE_LEVEL, [half])) == "a"


def test_control_tokens_are_no_text() -> None:
    end = letter_token("<end>")
    letter = letter_token("b")
    assert list(pieces(BYTE_LEVEL, [letter, end, letter])) == ["b", "", "b", ""]


def stream_text(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """Push a text letter by letter."""
    stream = TextStream(Detokenizer(BYTE_LEVEL), stop)
    out = ""
    for letter in text:
        out += stream.push(letter_token(letter))
        if stream.stopped:
            return out, True
    out += stream.finish()
    return out, stream.stopped


@given(
    st.text(STOP_LETTERS, max_size=16),
    st.lists(st.text(STOP_LETTERS, min_size=1, max_size=3), min_size=1, max_size=3),
)
def test_streamed_text_is_the_whole_text_up_to_the_first_stop_string(
    whole: str, stop: list[str]
) -> None:
    text, stopped = stream_text(whole, tuple(stop))
    assert stopped == any(one in whole for one in stop)
    if stopped:
        assert any(whole.startswith(text + one) for one in stop)
        assert not any(one in text for one in stop)
    else:
        assert text == whole


def test_a_stop_string_in_what_a_cut_left_over_still_stops() -> None:
    half = letter_token(HALF)
    stream = TextStream(Detokenizer(BYTE_LEVEL), ("a",))
    assert stream.push(half) == ""
    assert stream.finish() == ""
    assert stream.stopped
