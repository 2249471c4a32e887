"""From units of a query to the passages that hold most of their weight.

Rare phrases name the candidates, and frequent ones only rank them, so that no search walks through
all passages that hold a frequent word. What is fetched is bounded everywhere.
"""

import math
import sqlite3
from dataclasses import dataclass

from fedattn.passages.expanding import expand
from fedattn.passages.query import Unit
from fedattn.passages.words import split_words

RARE = 1000
"""Passages that may hold a phrase that names candidates."""
MAX_CANDIDATES = 3000
MAX_READ = 400
"""Candidates whose text is read and scored."""
_MAX_JOINED = 4
"""Frequent phrases that are looked for together."""
_SATURATION = 0.4
"""How much a second occurrence adds; BM25's k1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """One way to say a unit.

    Attributes:
        weight: what it adds to a passage that holds it.
        numbers: of the newest passages with it.
        is_rare: whether `numbers` are all of them.
    """

    text: str
    unit: int
    weight: float
    numbers: tuple[int, ...]
    is_rare: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A passage's number, its score, and the share of the query's weight it holds."""

    number: int
    score: float
    coverage: float


class Ranking:
    """One search, in one state of the database.

    Args:
        num_passages: in the database.
    """

    def __init__(
        self, connection: sqlite3.Connection, num_passages: int, units: list[Unit]
    ) -> None:
        self._connection = connection
        self._num_passages = num_passages
        self._phrases: list[Phrase] = []
        self._weights: list[float] = []
        for unit in expand(connection, units):
            self._look_up(unit)
        self._total = sum(self._weights)

    def best(self, limit: int) -> list[Scored]:
        """The best passages, best first."""
        candidates = self._candidates()
        scored = [self._score(number, text) for number, text in self._texts(candidates)]
        found = [one for one in scored if one.score > 0]
        return sorted(found, key=lambda one: (-one.score, -one.number))[:limit]

    def _look_up(self, unit: Unit) -> None:
        """Phrases of a unit that occur, and the weight of the unit."""
        index = len(self._weights)
        found = {text: self._newest_with(quoted(text)) for text in unit}
        sizes = {text: self._count(numbers) for text, numbers in found.items()}
        exact = max(unit, key=lambda text: unit[text])
        size = sizes[exact] or sum(
            sizes[text] for text in unit if unit[text] >= max(map(unit.__getitem__, unit)) / 2
        )
        weight = self._idf(size)
        self._weights.append(weight)
        for text, numbers in found.items():
            if numbers:
                self._phrases.append(
                    Phrase(
                        text=text,
                        unit=index,
                        weight=unit[text] * min(weight, self._idf(sizes[text])),
                        numbers=numbers[:RARE],
                        is_rare=len(numbers) <= RARE,
                    )
                )

    def _newest_with(self, expression: str, limit: int = RARE + 1) -> tuple[int, ...]:
        rows = self._connection.execute(
            "SELECT rowid FROM terms WHERE terms MATCH ? ORDER BY rowid DESC LIMIT ?",
            (expression, limit),
        )
        return tuple(number for (number,) in rows)

    def _count(self, numbers: tuple[int, ...]) -> float:
        """Passages with a phrase; of a frequent one by how dense it is in the newest ones."""
        if len(numbers) <= RARE:
            return len(numbers)
        span = numbers[0] - numbers[-1] + 1
        return max(len(numbers), self._num_passages * min(1.0, len(numbers) / span))

    def _idf(self, size: float) -> float:
        """As BM25 has it; what occurs nowhere weighs no more than what occurs once."""
        size = max(size, 1)
        others = max(self._num_passages - size, 0)
        return math.log1p((others + 0.5) / (size + 0.5))

    def _candidates(self) -> list[int]:
        """Numbers of passages worth reading, the most promising first."""
        held: dict[int, dict[int, float]] = {}
        rare = sorted((p for p in self._phrases if p.is_rare), key=lambda p: -p.weight)
        for phrase in rare:
            if len(held) >= MAX_CANDIDATES:
                break
            for number in phrase.numbers:
                units = held.setdefault(number, {})
                units[phrase.unit] = max(units.get(phrase.unit, 0.0), phrase.weight)
        sums = {number: sum(units.values()) for number, units in held.items()}
        if len(sums) > MAX_READ:
            self._add_frequent(sums, rare)
        best = sorted(sums, key=lambda number: (-sums[number], -number))[:MAX_READ]
        return list(dict.fromkeys(best + self._with_frequent()))

    def _add_frequent(self, sums: dict[int, float], rare: list[Phrase]) -> None:
        """Among many candidates, count the frequent phrases that matter most."""
        any_rare = " OR ".join(quoted(phrase.text) for phrase in rare)
        for phrase in self._frequent():
            both = f"({any_rare}) AND {quoted(phrase.text)}"
            for number in self._newest_with(both, MAX_CANDIDATES):
                if number in sums:
                    sums[number] += phrase.weight

    def _with_frequent(self) -> list[int]:
        """The newest passages with as many frequent phrases as occur together."""
        frequent = self._frequent()
        for size in range(len(frequent), 0, -1):
            together = " AND ".join(quoted(phrase.text) for phrase in frequent[:size])
            numbers = self._newest_with(together, MAX_READ // 2)
            if numbers:
                return list(numbers)
        return []

    def _frequent(self) -> list[Phrase]:
        """The heaviest frequent phrase of each unit, heaviest first."""
        by_unit: dict[int, Phrase] = {}
        for phrase in sorted(self._phrases, key=lambda p: p.weight):
            if not phrase.is_rare:
                by_unit[phrase.unit] = phrase
        return sorted(by_unit.values(), key=lambda p: -p.weight)[:_MAX_JOINED]

    def _texts(self, numbers: list[int]) -> list[tuple[int, str]]:
        places = ", ".join("?" * len(numbers))
        return self._connection.execute(
            f"SELECT number, text FROM passages WHERE number IN ({places})",  # noqa: S608
            numbers,
        ).fetchall()

    def _score(self, number: int, text: str) -> Scored:
        words = f" {' '.join(split_words(text))} "
        held = [0.0] * len(self._weights)
        score = [0.0] * len(self._weights)
        for phrase in self._phrases:
            spaced = f" {phrase.text} "
            if phrase.weight > 0 and spaced in words:
                times = words.count(spaced)
                more = times * (1 + _SATURATION) / (times + _SATURATION)
                held[phrase.unit] = max(held[phrase.unit], phrase.weight)
                score[phrase.unit] = max(score[phrase.unit], phrase.weight * more)
        coverage = sum(held) / self._total if self._total else 0.0
        return Scored(number=number, score=sum(score), coverage=min(coverage, 1.0))


def quoted(phrase: str) -> str:
    """A phrase for FTS5; all signs in it are inert."""
    return '"' + phrase.replace('"', '""') + '"'
