"""Text of others reaches the terminal as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.printable import one_line, printable


@pytest.mark.parametrize(
    "text",
    [
        "300 boxes of tea",
        "[bold]tea[/] :smile: \\x1b [link=http://x]",
        "line\nline\n\ttab",
        "Grüße, 茶, السفينة, 👩‍🚀",
        "",
    ],
)
def test_plain_text_of_any_language_is_verbatim(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("good\rbad", r"good\rbad"),
        ("a\x08b\x7f\x00", r"a\x08b\x7f\x00"),
        ("pier \u202e4 reip", r"pier \u202e4 reip"),
        ("half \ud83d", r"half \ud83d"),
    ],
)
def test_what_a_terminal_obeys_is_shown_and_not_done(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_nothing_printed_controls_a_terminal(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")  # no surrogates are left
    assert not [char for char in shown if ord(char) < 32 and char not in "\n\t"]
    assert not [char for char in shown if 0x7F <= ord(char) <= 0x9F]
    assert printable(shown) == shown


def test_a_reason_of_many_lines_is_one() -> None:
    assert one_line("lost\r\nerror [internal]: all is lost\u2028!") == (
        "lost error [internal]: all is lost !"
    )
