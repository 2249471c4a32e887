"""Which passages hold a phrase, and how many do: without walking through all of a frequent one."""

import sqlite3

RARE = 600
"""Passages that may hold a phrase that is called rare."""
_SAMPLE = 48
"""Passages at either end of the store that tell how frequent a phrase is."""
_SURELY = 4
"""A phrase that seems so many times as frequent as a rare one, at both ends, is no rare one."""
_WALKED = 8000
"""Passages that are looked at for words side by side, about."""


class Postings:
    """The index of one database, in one state of it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        first, last, num_passages = connection.execute(
            "SELECT (SELECT min(number) FROM passages), (SELECT max(number) FROM passages), "
            "(SELECT ifnull(sum(num_passages), 0) FROM files)"
        ).fetchone()
        self._first, self._last = first or 0, last or 0
        self.num_passages = int(num_passages)

    def newest(self, expression: str, limit: int, order: str = "DESC") -> list[int]:
        """Numbers of the newest passages that an expression of FTS5 fits."""
        rows = self._connection.execute(
            f"SELECT rowid FROM terms WHERE terms MATCH ? ORDER BY rowid {order} LIMIT ?",  # noqa: S608
            (expression, limit),
        ).fetchall()
        return [number for (number,) in rows]

    def find(self, phrase: str) -> tuple[float, list[int]]:
        """How many passages hold a phrase, about, and which; a frequent one's are left out.

        Of several words that are all frequent, only so many of the newest passages are looked at.
        """
        words = phrase.split()
        if len(words) > 1:
            return self._find_side_by_side(phrase, words)
        expression = quoted(phrase)
        numbers = self.newest(expression, _SAMPLE)
        if len(numbers) < _SAMPLE:
            return len(numbers), numbers
        oldest = self.newest(expression, _SAMPLE, "ASC")
        sizes = (
            self._size(len(numbers), self._last - numbers[-1]),
            self._size(len(oldest), oldest[-1] - self._first),
        )
        if min(sizes) > _SURELY * RARE:
            return sum(sizes) / 2, []
        numbers = self.newest(expression, RARE + 1)
        if len(numbers) <= RARE:
            return len(numbers), numbers
        return max(sum(sizes) / 2, len(numbers)), []

    def _find_side_by_side(self, phrase: str, words: list[str]) -> tuple[float, list[int]]:
        size = min(self.find(word)[0] for word in words)
        if not size:
            return 0.0, []
        share = min(1.0, _WALKED / size)
        since = self._last - round((self._last - self._first + 1) * share)
        rows = self._connection.execute(
            "SELECT rowid FROM terms WHERE terms MATCH ? AND rowid > ? ORDER BY rowid DESC LIMIT ?",
            (quoted(phrase), since, RARE),
        ).fetchall()
        return len(rows) / share, [number for (number,) in rows]

    def texts(self, numbers: list[int]) -> list[tuple[int, str]]:
        """Numbers and texts of passages."""
        places = ", ".join("?" * len(numbers))
        return self._connection.execute(
            f"SELECT number, text FROM passages WHERE number IN ({places})",  # noqa: S608
            numbers,
        ).fetchall()

    def _size(self, found: int, span: int) -> float:
        """Passages with a phrase, if all of the store is like `span` numbers at its end."""
        return min(float(self.num_passages), self.num_passages * found / max(span + 1, 1))


def quoted(phrase: str) -> str:
    """A phrase for FTS5; all signs in it are inert."""
    return '"' + phrase.replace('"', '""') + '"'
