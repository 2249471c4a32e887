"""Words of the texts that a word of a question may mean: inflected, longer, shorter, compound.

"Druck" is in "Ölpumpendruck", "pumps" is "pump" with an ending. Instead of looking for parts of
words in every passage, which would make the index several times as large, distinct words are
collected, and their parts are looked up there. Words with digits are not: there are too many.
"""

import sqlite3
from collections.abc import Iterable

from fedattn.passages.words import is_unspaced

MIN_CHARS, MAX_CHARS = 4, 40
MAX_WORDS = 500_000
"""Distinct words; a text with more is no language, and later ones are found as they are only."""
_SPACES = {code: " " for code in range(128) if not chr(code).isalnum()}
_MAX_LOOKED_AT = 400


class Vocabulary:
    """Collects distinct words as passages are written."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def add(self, connection: sqlite3.Connection, texts: list[str]) -> None:
        """Take in the words of some texts, as `indexed_text` gives them."""
        new = {word for word in _distinct(texts) - self._known if _is_kept(word)}
        if not new or len(self._known) >= MAX_WORDS:
            return
        self._known |= new
        for word in sorted(new):
            cursor = connection.execute(
                "INSERT INTO vocabulary(word) VALUES(?) ON CONFLICT DO NOTHING", (word,)
            )
            if cursor.rowcount:
                connection.execute(
                    "INSERT INTO fragments(rowid, word) VALUES(?, ?)", (cursor.lastrowid, word)
                )

    def forget(self) -> None:
        """After a transaction was taken back: what is known may not be written."""
        self._known.clear()


def words_with(connection: sqlite3.Connection, part: str) -> list[str]:
    """Some words of the texts that hold a part of at least three characters, short ones first."""
    found = connection.execute(
        "SELECT word FROM fragments WHERE fragments MATCH ? LIMIT ?",
        (f'"{part}"', _MAX_LOOKED_AT),
    )
    return sorted((word for (word,) in found), key=lambda word: (len(word), word))


def words_within(connection: sqlite3.Connection, word: str) -> list[str]:
    """Words of the texts that stand in a longer one, long ones first."""
    parts = sorted(
        {
            word[start:stop]
            for start in range(len(word))
            for stop in range(start + MIN_CHARS, len(word) + 1)
            if stop - start < len(word)
        }
    )
    places = ", ".join("?" * len(parts))
    found = connection.execute(
        f"SELECT word FROM vocabulary WHERE word IN ({places})",  # noqa: S608 - question marks
        parts,
    )
    return sorted((part for (part,) in found), key=lambda part: (-len(part), part))


def _distinct(texts: Iterable[str]) -> set[str]:
    return set("\n".join(texts).lower().translate(_SPACES).split())


def _is_kept(word: str) -> bool:
    return MIN_CHARS <= len(word) <= MAX_CHARS and word.isalpha() and not is_unspaced(word)
