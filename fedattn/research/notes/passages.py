"""What takes part of each node's notes, and its tokens."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

from fedattn.core.share import Share
from fedattn.core.token_budget import node_tokens, take_best
from fedattn.model.prompt import PromptTokenizer
from fedattn.passages.choice import Wish, choose
from fedattn.passages.passage import Passage
from fedattn.passages.store import PassageStore
from fedattn.research.notes.cases import NotesCase


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """How passages are chosen.

    Attributes:
        share: what contributors know; the publisher always knows its question.
        context_tokens: most tokens of all nodes' texts together; None for whole texts.
        whole_below: as of `Wish`.
    """

    share: Share = Share.QUESTION
    context_tokens: int | None = None
    whole_below: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenNote:
    """What takes part of one node's notes.

    Attributes:
        node_id: whose.
        passages: in the order of the text.
        tokens: of each passage.
        fit: how well they fit what is asked, 0 to 1.
    """

    node_id: str
    passages: tuple[Passage, ...]
    tokens: tuple[tuple[int, ...], ...]
    fit: float

    @property
    def token_ids(self) -> list[int]:
        return [token for own in self.tokens for token in own]


class NotesLibrary:
    """Indexes of notes by folder, in memory, each made once."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self._tokenizer = tokenizer
        self._stores: dict[Path, PassageStore] = {}
        self._tokens: dict[tuple[Path, int], tuple[int, ...]] = {}

    def choose(
        self, case: NotesCase, selection: Selection, more: Mapping[str, str] | None = None
    ) -> list[ChosenNote]:
        """What takes part of each node's notes, contributors first, the publisher last.

        Args:
            case: the question and its nodes.
            selection: how to choose.
            more: words that contributors are told besides, by node id; a second round's.
        """
        publisher = case.question.publisher
        order = [node for node in case.folders if node != publisher] + [publisher]
        total = selection.context_tokens
        knows = selection.share is not Share.NOTHING
        chosen: list[ChosenNote] = []
        for node_id in order:
            share = Share.QUESTION if node_id == publisher else selection.share
            words = _told(case.question.question, share)
            words = f"{words} {(more or {}).get(node_id, '')}".strip()
            wish = Wish()
            if total is not None:
                is_own = node_id == publisher
                each = node_tokens(total, len(order) - 1, knows_question=knows or is_own)
                wish = Wish(words=words, max_tokens=each, whole_below=selection.whole_below)
            chosen.append(self._choose(node_id, case.folders[node_id], wish))
        own = chosen[-1]
        left = None if total is None else max(1, total - len(own.token_ids))
        taken = take_best([(len(one.token_ids), one.fit) for one in chosen[:-1]], left)
        return [
            one if place in taken or one is own else replace(one, passages=(), tokens=())
            for place, one in enumerate(chosen)
        ]

    def _choose(self, node_id: str, folder: Path, wish: Wish) -> ChosenNote:
        store = self._store(folder)
        choice = choose(store, wish, lambda passage: len(self._tokenize(folder, passage)))
        passages = choice.passages
        tokens = [self._tokenize(folder, passage) for passage in passages]
        if wish.max_tokens is not None and len(tokens) == 1:
            tokens = [tokens[0][: wish.max_tokens]]
        return ChosenNote(node_id=node_id, passages=passages, tokens=tuple(tokens), fit=choice.fit)

    def _store(self, folder: Path) -> PassageStore:
        if folder not in self._stores:
            self._stores[folder] = PassageStore(folder, None)
            self._stores[folder].refresh()
        return self._stores[folder]

    def _tokenize(self, folder: Path, passage: Passage) -> tuple[int, ...]:
        key = folder, passage.number
        if key not in self._tokens:
            self._tokens[key] = tuple(self._tokenizer.context(passage.text))
        return self._tokens[key]


def topic_of(question: str) -> str:
    """Words that a publisher might reveal of a question: longer ones, no numbers, no order."""
    words = set(re.findall(r"[^\W\d_]{4,}", question))
    return " ".join(sorted(words, key=str.casefold))


def _told(question: str, share: Share) -> str:
    match share:
        case Share.NOTHING:
            return ""
        case Share.TOPIC:
            return topic_of(question)
        case Share.QUESTION:
            return question
        case other:
            assert_never(other)
