"""Which passages of a private text take part in a session."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal

from fedattn.passages.passage import Hit, Passage
from fedattn.passages.reader import PassageReader
from fedattn.passages.store import PassageStore

Order = Literal["newest", "first"]
"""Newest entries first, or from the beginning."""
CountTokens = Callable[[Passage], int]

_MAX_CANDIDATES = 64
_CHARS_A_TOKEN = 12
"""A text of more characters for each token of the budget is not tokenized to see if it fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What takes part when nothing is known of the question, as the owner wrote it.

    Attributes:
        order: which passages go first.
        topic: words; passages that fit them go before others. Empty for none.
    """

    order: Order = "newest"
    topic: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is wanted of a text.

    Attributes:
        words: what is known of the question; empty if nothing is.
        max_tokens: of all chosen passages; None for no limit.
        standing: goes where nothing is known of the question.
        whole_below: a text of at most so many tokens takes part as a whole, whatever is asked.
        least_coverage: share of the weight of the words that a passage must hold to fit them.
    """

    words: str = ""
    max_tokens: int | None = None
    standing: Standing = field(default_factory=Standing)
    whole_below: int = 0
    least_coverage: float = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What takes part of a text.

    Attributes:
        passages: in the order of the text.
        fit: largest share of the weight of the words that one of them holds, 0 to 1; 0 if nothing
            is known of the question.
    """

    passages: tuple[Passage, ...]
    fit: float = 0.0


def choose(store: PassageStore, wish: Wish, count_tokens: CountTokens) -> Choice:
    """The passages that take part; none if none fits what is asked.

    Args:
        store: of the text.
        wish: what is wanted.
        count_tokens: of a passage.
    """
    limit = wish.max_tokens
    if not wish.words:
        whole = _whole(store, limit, count_tokens)
        chosen = whole or _fill(_standing(store, wish.standing, limit), limit, count_tokens)
        return Choice(passages=_in_order(chosen))
    hits = fitting(store, wish)
    most = wish.whole_below if limit is None else min(limit, wish.whole_below)
    whole = _whole(store, most, count_tokens)
    chosen = whole or _fill([hit.passage for hit in hits], limit, count_tokens)
    return Choice(passages=_in_order(chosen), fit=max((hit.coverage for hit in hits), default=0.0))


def _in_order(passages: Iterable[Passage]) -> tuple[Passage, ...]:
    return tuple(sorted(passages, key=lambda one: (PurePath(one.file).parts, one.number)))


def fitting(reader: PassageReader, wish: Wish) -> list[Hit]:
    """What is chosen from if words are given: what fits them, the best first.

    Raises:
        CannotReadError: the index cannot be read.
    """
    hits = reader.search(wish.words, _MAX_CANDIDATES)
    return [hit for hit in hits if hit.coverage >= wish.least_coverage]


def _whole(store: PassageStore, limit: int | None, count_tokens: CountTokens) -> list[Passage]:
    """Everything, if it keeps the limit; else nothing."""
    counts = store.counts
    if limit is not None and counts.num_chars > _CHARS_A_TOKEN * limit:
        return []
    passages = store.first(counts.num_passages)
    if limit is not None and sum(map(count_tokens, passages)) > limit:
        return []
    return passages


def _found(store: PassageStore, wish: Wish) -> list[Passage]:
    return [hit.passage for hit in fitting(store, wish)]


def _standing(store: PassageStore, standing: Standing, limit: int | None) -> list[Passage]:
    """What the owner lets go first, at least as much as can take part."""
    most = store.counts.num_passages if limit is None else min(limit, store.counts.num_passages)
    ordered = store.newest(most) if standing.order == "newest" else store.first(most)
    if not standing.topic:
        return ordered
    on_topic = _found(store, Wish(words=standing.topic))
    known = {passage.number for passage in on_topic}
    return [*on_topic, *(passage for passage in ordered if passage.number not in known)]


def _fill(
    passages: Iterable[Passage], limit: int | None, count_tokens: CountTokens
) -> list[Passage]:
    """The first of them, leaving out what does not fit any more.

    The very first is taken in any case: who uses it cuts it to the limit.
    """
    chosen: list[Passage] = []
    room = limit
    for passage in passages:
        size = count_tokens(passage)
        if room is None or size <= room or not chosen:
            chosen.append(passage)
            room = None if room is None else room - size
    return chosen
