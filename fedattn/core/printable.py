"""Text of others, such as answers, names and reasons, as a terminal or a log may be given it."""

import unicodedata

_LAYOUT = frozenset("\n\t")
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that show what follows in another order than it is written."""


def printable(text: str) -> str:
    r"""The text with what a terminal would obey written as escapes; all else is as it was.

    Line feeds and tabs stay. Control characters (C0, C1, DEL), lone surrogates and characters
    that turn the direction of writing become such as `\x1b`, so that nothing is lost or hidden.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(char) if _is_obeyed(char) else char for char in text)


def one_line(text: str) -> str:
    r"""As `printable`, and on one line: its line breaks become blanks."""
    return printable(" ".join(text.splitlines()))


def short_line(text: str, most: int) -> str:
    """As `one_line`, of at most `most` characters: what another node says for people."""
    return one_line(text[:most])[:most]


def _is_obeyed(char: str) -> bool:
    if char in _LAYOUT:
        return False
    return unicodedata.category(char) in {"Cc", "Cs"} or char in _DIRECTIONS


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
