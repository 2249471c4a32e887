"""What a question looks for: units of meaning, each with the phrases that may stand for it."""

import unicodedata

import regex

from fedattn.passages.stop_words import STOP_WORDS
from fedattn.passages.words import codes_of, is_unspaced, split_words

MAX_CHARS = 2000
MAX_UNITS = 64
_CHUNK = regex.compile(r"[\p{L}\p{N}\p{M}]+(?:[-/._:+#,][\p{L}\p{N}\p{M}]+)*")
_LETTERS_OR_DIGITS = regex.compile(r"\p{N}+|[\p{L}\p{M}]+")
_MAX_PARTS = 8
_CHARACTER = 0.3
"""Weight of one of two neighbours in a script without spaces."""
_APART, _MOST, _PART = 0.9, 0.5, 0.25
"""Weights of a code's parts side by side, of all but one at an end, and of one alone."""

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
        codes = [word.lower() for word in codes_of(chunk)]
        if len(codes) == 1 and found[-1] == codes[0]:
            units.setdefault(codes[0], _code(codes[0], found[:-1]))
            continue
        for word in found:
            if word not in STOP_WORDS and not _is_left_to_pairs(word, chunk):
                units.setdefault(word, _word(word))
        if len(units) >= MAX_UNITS:
            break
    return list(units.values())[:MAX_UNITS]


def _is_left_to_pairs(word: str, chunk: str) -> bool:
    """Whether a character counts only with its neighbours, as in a script without spaces."""
    return len(word) == 1 < len(chunk) and is_unspaced(word)


def _word(word: str) -> Unit:
    if len(word) == 2 and is_unspaced(word):
        return {word: 1.0, word[0]: _CHARACTER, word[1]: _CHARACTER}
    parts = _LETTERS_OR_DIGITS.findall(word)
    is_code = 1 < len(parts) <= _MAX_PARTS
    return {word: 1.0, " ".join(parts): _APART} if is_code else {word: 1.0}


def _code(code: str, words: list[str]) -> Unit:
    """A code as it is, and weaker: within a longer one, without an end, and its words alone."""
    unit = {word: _PART for word in words if len(word) > 2}
    if len(words) > 2:
        unit |= {" ".join(words[:-1]): _MOST, " ".join(words[1:]): _MOST}
    return unit | {" ".join(words): _APART, code: 1.0}
