"""What a question looks for: units of meaning, each with the phrases that may stand for it."""

import unicodedata

import regex

from fedattn.passages.stop_words import STOP_WORDS
from fedattn.passages.words import is_unspaced, split_words

MAX_CHARS = 2000
MAX_UNITS = 64
_CHUNK = regex.compile(r"[\p{L}\p{N}\p{M}]+(?:[-/._:+#,][\p{L}\p{N}\p{M}]+)*")
_LETTERS_OR_DIGITS = regex.compile(r"\p{N}+|[\p{L}\p{M}]+")
_MAX_CODE_WORDS = 8
_JOINED, _MOST, _PART = 0.9, 0.5, 0.25
"""Weights of a code written otherwise, of all but an end of it, and of one word of it."""

Unit = dict[str, float]
"""Phrases, words apart by spaces, and how much each counts: 1 is what was asked for."""


def read_query(words: str) -> list[Unit]:
    """Units of the first 2,000 characters, without words that only ask; at most 64.

    A word is one unit. So is a code, such as "P-101/B" or "10.5": words with a digit among them,
    joined by signs. Scripts without spaces give pairs of neighbours.
    """
    units: dict[str, Unit] = {}
    for chunk in _CHUNK.findall(unicodedata.normalize("NFKC", words[:MAX_CHARS])):
        found = split_words(chunk)
        if len(found) > 1 and any(char.isnumeric() for char in chunk) and chunk.isascii():
            units.setdefault(" ".join(found), _code(found))
            continue
        for word in found:
            if word not in STOP_WORDS and not (is_unspaced(word) and len(word) < len(chunk) == 2):
                units.setdefault(word, _word(word))
        if len(units) >= MAX_UNITS:
            break
    return list(units.values())[:MAX_UNITS]


def _word(word: str) -> Unit:
    parts = _LETTERS_OR_DIGITS.findall(word)
    is_code = 1 < len(parts) <= _MAX_CODE_WORDS
    return {word: 1.0, " ".join(parts): _JOINED} if is_code else {word: 1.0}


def _code(words: list[str]) -> Unit:
    """A code as it is, and weaker: written together, without an end, and its words alone."""
    words = words[:_MAX_CODE_WORDS]
    unit = {word: _PART for word in words if len(word) > 2}
    if len(words) > 2:
        unit |= {" ".join(words[:-1]): _MOST, " ".join(words[1:]): _MOST}
    return unit | {"".join(words): _JOINED, " ".join(words): 1.0}
