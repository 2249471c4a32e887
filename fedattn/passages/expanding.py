"""Other words of the texts that a word of a question may stand for."""

import sqlite3

from fedattn.passages.query import Unit
from fedattn.passages.vocabulary import MAX_CHARS, MIN_CHARS, words_with, words_within
from fedattn.passages.words import is_unspaced

_ENDING = 3
"""Letters that an ending may have: pump, pumps, pumping."""
_INFLECTED, _COMPOUND, _INSIDE = 0.8, 0.6, 0.3
_MAX_LONGER, _MAX_WITHIN = 6, 3
_MAX_EXPANDED = 12
"""Words of a question that are expanded."""


def expand(connection: sqlite3.Connection, units: list[Unit]) -> list[Unit]:
    """Units with more phrases, each counting less than the word that was asked for."""
    expanded = 0
    result = []
    for unit in units:
        word = next(iter(unit))
        is_word = len(unit) == 1 and word.isalpha() and not is_unspaced(word)
        if is_word and MIN_CHARS <= len(word) <= MAX_CHARS and expanded < _MAX_EXPANDED:
            expanded += 1
            result.append(_longer(connection, word) | _within(connection, word) | unit)
        else:
            result.append(unit)
    return result


def _longer(connection: sqlite3.Connection, word: str) -> Unit:
    found = [longer for longer in words_with(connection, word) if longer != word]
    return {longer: _weight(longer, word) for longer in found[:_MAX_LONGER]}


def _weight(longer: str, word: str) -> float:
    if longer.startswith(word):
        return _INFLECTED if len(longer) - len(word) <= _ENDING else _COMPOUND
    return _COMPOUND if longer.endswith(word) else _INSIDE


def _within(connection: sqlite3.Connection, word: str) -> Unit:
    """Parts of a compound, and its stem: they must begin or end it."""
    found = [
        part
        for part in words_within(connection, word)
        if word.startswith(part) or word.endswith(part)
    ]
    return {
        part: _INFLECTED
        if word.startswith(part) and len(word) - len(part) <= _ENDING
        else _COMPOUND * len(part) / len(word)
        for part in found[:_MAX_WITHIN]
    }
