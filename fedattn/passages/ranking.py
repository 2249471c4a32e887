"""From units of a query to the passages that hold most of their weight.

Rare phrases name the candidates. Frequent ones only rank them, and name the newest passages that
hold several: so no search walks through all passages that hold a frequent word, and what is fetched
is bounded everywhere.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fedattn.passages.postings import Postings, quoted
from fedattn.passages.query import Unit
from fedattn.passages.words import split_words

MAX_CANDIDATES = 1500
MAX_READ = 200
"""Candidates of rare phrases whose text is read and scored."""
MAX_FREQUENT = 100
"""The same of frequent ones."""
_MAX_JOINED = 4
"""Frequent phrases that are looked for together."""
_SATURATION = 0.4
"""How much a second occurrence adds; BM25's k1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """One way to say a unit, which occurs.

    Attributes:
        weight: what it adds to a passage that holds it.
        size: passages that hold it, about; 0: it was not looked for.
        numbers: of the passages with it; empty if it is frequent.
    """

    text: str
    unit: int
    weight: float
    size: float
    numbers: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A passage's number, its score, and the share of the query's weight it holds."""

    number: int
    score: float
    coverage: float


class Ranking:
    """One search, in one state of the database."""

    def __init__(self, postings: Postings, units: Iterable[Unit]) -> None:
        self._postings = postings
        self._phrases: list[Phrase] = []
        self._weights: list[float] = []
        for unit in units:
            self._look_up(unit)
        self._phrases.sort(key=lambda phrase: -phrase.weight)
        self._spaced = [(f" {phrase.text} ", phrase) for phrase in self._phrases]

    def best(self, limit: int) -> list[Scored]:
        """The best passages, best first."""
        texts = self._postings.texts(self._candidates())
        scored = [self._score(number, text) for number, text in texts]
        found = [one for one in scored if one.score > 0]
        return sorted(found, key=lambda one: (-one.score, -one.number))[:limit]

    def _look_up(self, unit: Unit) -> None:
        """Take in the phrases of a unit, and the weight of the unit.

        That goes by what was asked for, or, if it occurs nowhere, by the best variant. A variant
        weighs no more. Words side by side are looked for only if nothing better was found: it
        takes long.
        """
        index, weight = len(self._weights), 0.0
        for text, factor in sorted(unit.items(), key=lambda item: -item[1]):
            is_left_out = weight and " " in text
            size, numbers = (0.0, []) if is_left_out else self._postings.find(text)
            if size or is_left_out:
                weight = weight or self._idf(size)
                adds = factor * (min(weight, self._idf(size)) if size else weight)
                self._phrases.append(
                    Phrase(text=text, unit=index, weight=adds, size=size, numbers=numbers)
                )
        self._weights.append(weight or self._idf(0))

    def _idf(self, size: float) -> float:
        """As BM25 has it; what occurs nowhere weighs no more than what occurs once."""
        size = max(size, 1)
        others = max(self._postings.num_passages - size, 0)
        return math.log1p((others + 0.5) / (size + 0.5))

    def _candidates(self) -> list[int]:
        """Numbers of passages worth reading."""
        held: dict[int, dict[int, float]] = {}
        rare = []
        for phrase in self._phrases:
            if phrase.numbers and len(held) < MAX_CANDIDATES:
                rare.append(phrase)
                for number in phrase.numbers:
                    held.setdefault(number, {}).setdefault(phrase.unit, phrase.weight)
        sums = {number: sum(units.values()) for number, units in held.items()}
        if len(sums) > MAX_READ:
            self._add_frequent(sums, rare)
        best = sorted(sums, key=lambda number: (-sums[number], -number))[:MAX_READ]
        return list({*best, *self._with_frequent()})

    def _add_frequent(self, sums: dict[int, float], rare: list[Phrase]) -> None:
        """Among many candidates, count the frequent phrases that matter most."""
        any_rare = " OR ".join(quoted(phrase.text) for phrase in rare)
        for phrase in self._frequent():
            both = f"({any_rare}) AND {quoted(phrase.text)}"
            for number in self._postings.newest(both, MAX_CANDIDATES):
                if number in sums:
                    sums[number] += phrase.weight

    def _with_frequent(self) -> list[int]:
        """The newest passages with as many frequent phrases as occur together."""
        frequent = self._frequent()
        for size in range(len(frequent), 0, -1):
            together = " AND ".join(quoted(phrase.text) for phrase in frequent[:size])
            if numbers := self._postings.newest(together, MAX_FREQUENT):
                return numbers
        return []

    def _frequent(self) -> list[Phrase]:
        """The heaviest frequent phrase of each unit, heaviest first."""
        by_unit: dict[int, Phrase] = {}
        for phrase in self._phrases:
            if phrase.size and not phrase.numbers:
                by_unit.setdefault(phrase.unit, phrase)
        return list({phrase.text: phrase for phrase in by_unit.values()}.values())[:_MAX_JOINED]

    def _score(self, number: int, text: str) -> Scored:
        words = f" {' '.join(split_words(text))} "
        held: dict[int, float] = {}
        score = 0.0
        for spaced, phrase in self._spaced:  # the heaviest of a unit comes first
            if spaced in words and phrase.unit not in held:
                held[phrase.unit] = phrase.weight
                times = words.count(spaced)
                score += phrase.weight * times * (1 + _SATURATION) / (times + _SATURATION)
        total = sum(self._weights)
        coverage = min(sum(held.values()) / total, 1.0) if total else 0.0
        return Scored(number=number, score=score, coverage=coverage)
