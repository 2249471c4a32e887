"""Text in the encodings from before Unicode, where all that could be meant is the same text."""

import re
import unicodedata
from itertools import pairwise

from charset_normalizer import from_bytes

_ENCODINGS = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8_r"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949", "cp850", "cp437", "mac_roman"),
]
_CHAOS_MARGIN = 0.1
"""Charset-normalizer's measure of disorder (0 to 1); what is worse than the best by more is out."""
_WORD = re.compile(r"[^\W\d_]+")
_INSIDE_WORD = re.compile(
    r"(?<=[A-Za-z])[^\x00-\x7f](?=[^\W\d_])|(?<=[^\W\d_])[^\x00-\x7f](?=[A-Za-z])"
)
_JOINERS = "\u2018\u2019\xb7\u2010\u2011\u2013\u2014\xad"
"""Quotation marks, middle dot, hyphens and dashes, which stand between letters in proper texts."""


def decode_legacy(data: bytes) -> tuple[str, str] | None:
    """An encoding and the text it makes, if all encodings that fit agree on it; None otherwise.

    One byte means another letter in each encoding, so a guess would often be a wrong text that
    nobody notices. Encodings that charset-normalizer finds plausible, and that make words that
    could be words, must agree: `Müller` is the same in all Western ones and garbage in the others;
    `à` and `ŕ` are one byte, and both are letters, so a text with it stays undecided.
    """
    lines = [line for line in data.splitlines(keepends=True) if not line.isascii()]
    matches = from_bytes(b"".join(lines), cp_isolation=_ENCODINGS)
    names = {
        name
        for match in matches
        if match.chaos <= min(match.chaos for match in matches) + _CHAOS_MARGIN
        for name in {match.encoding, *match.could_be_from_charset} & set(_ENCODINGS)
    }
    readings = {
        text: name
        for name in sorted(names)
        if (text := _decode(data, name)) and _is_plausible(text)
    }
    if len(readings) != 1:
        return None
    ((text, name),) = readings.items()
    return name, text


def _decode(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _is_plausible(text: str) -> bool:
    """No sign inside a word, no capital after a small letter beyond ASCII, one script a word."""
    inside = _INSIDE_WORD.findall(text)
    if any(not char.isalpha() and char not in _JOINERS for char in inside):
        return False
    words = {word for word in _WORD.findall(text) if not word.isascii()}
    return all(_has_one_script(word) and _has_orderly_case(word) for word in words)


def _has_one_script(word: str) -> bool:
    """Whether letters are all Latin or none is; kanji and kana may stand together."""
    is_latin = {unicodedata.name(char, "").startswith("LATIN") for char in word}
    return len(is_latin) == 1


def _has_orderly_case(word: str) -> bool:
    return not any(a.islower() and b.isupper() and not (a + b).isascii() for a, b in pairwise(word))
