"""Characters of private texts: only what is certain, and never a stray mark or NUL."""

import pytest

from fedattn.core.contexts import SkipReason
from fedattn.texts.decoding import decode

HARBOUR = "Harbour log. The ship Aurora lies at pier 4."
MASTER = "Hafenmeister Müller: The ship Aurora lies at pier 4 \u2013 north side."


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"],
)
@pytest.mark.parametrize("text", [HARBOUR, MASTER])
def test_unicode_is_read_with_and_without_its_mark(encoding: str, text: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_windows_1252_is_read_where_it_is_certain() -> None:
    assert decode(MASTER.encode("cp1252")) == MASTER


@pytest.mark.parametrize("data", [b"caf\xe0"])
def test_what_could_be_several_texts_is_none(data: bytes) -> None:
    assert decode(data) is SkipReason.UNDECODABLE


def test_a_named_encoding_decides_what_is_not_unicode() -> None:
    assert decode("à la carte".encode("cp1252"), "cp1252") == "à la carte"
    assert decode(MASTER.encode(), "cp1252") == MASTER


@pytest.mark.parametrize("encoding", ["undefined", "idna", "hex"])
def test_a_named_encoding_that_makes_no_text_leaves_the_file_out(encoding: str) -> None:
    assert decode(b"caf\xe0", encoding) is SkipReason.UNDECODABLE


@pytest.mark.parametrize("data", [b"a\0b", b"\x89PNG\r\n\x1a\n\0\0", bytes(range(256))])
def test_nul_never_gets_in(data: bytes) -> None:
    assert decode(data) is SkipReason.BINARY


def test_terminal_colours_and_line_ends_are_tidied() -> None:
    assert decode(b"\x1b[31mred\x1b[0m\r\nnext\rlast\x07") == "red\nnext\nlast"


def test_a_character_cut_at_the_end_of_a_growing_log_is_left_out() -> None:
    assert decode("Müller am Kai für".encode()[:-2]) == "Müller am Kai f"
