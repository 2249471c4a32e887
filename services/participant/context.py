"""The private context of a node: passages of its text, chosen and tokenized, never sent."""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import structlog
from cachetools import LRUCache

from fedattn.core.agreement import PassageSpan
from fedattn.core.contexts import ContextSummary, SkipReason
from fedattn.core.errors import ContextUnreadableError
from fedattn.core.printable import one_line
from fedattn.model.prompt import PromptTokenizer
from fedattn.passages.cannot_read import CannotReadError
from fedattn.passages.choice import Wish, choose
from fedattn.passages.passage import Passage, StoreCounts
from fedattn.passages.store import PassageStore
from services.participant.refreshing import Refresher
from services.participant.withheld import Pattern, withheld_tokens

VERSION_SIZE = 16
_PATIENCE_S, _SESSION_PATIENCE_S = 10.0, 2.0
"""How long to wait for a look at all files: at the start, and in a session."""
_FIT_STEPS = 16
"""Others learn how well a text fits in so many steps: more would tell questions apart."""
_MAX_CACHED = 4096
"""Passages whose tokens are kept."""
_SAMPLE_CHARS = 20_000
_SAMPLE_PASSAGES = 1000
"""A text no longer than this is counted exactly; of others so much, and the rest is estimated."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenText:
    """What takes part of a context in one session.

    Attributes:
        token_ids: of a contributor's span, without any prefix.
        version: equal for equal tokens, and says nothing of what they are.
        summary: counts that others may know.
        passages: what the tokens are of, in order; the last may be cut.
        spans: the same as others may know it.
        withheld: tokens, counted from the first, whose rows its owner lets nobody have.
        fit: how well it fits what is asked, 0 to 1; 0 if that is not known.
    """

    token_ids: list[int]
    version: bytes
    summary: ContextSummary
    passages: tuple[Passage, ...] = field(default=(), repr=False)
    spans: tuple[PassageSpan, ...] = ()
    withheld: tuple[int, ...] = ()
    fit: float = 0.0

    def after(self, prefix: list[int]) -> "ChosenText":
        """The same behind tokens that are this node's to give too."""
        shifted = tuple(index + len(prefix) for index in self.withheld)
        return replace(self, token_ids=prefix + self.token_ids, withheld=shifted)


OnChange = Callable[[StoreCounts, ContextSummary], None]
"""Told of each change of what is read or left out."""


class PrivateContext:
    """The text of a node, by passages. Sessions use it from threads of their own.

    Args:
        store: the passages.
        tokenizer: of the model.
        on_change: told of changes.
    """

    def __init__(
        self,
        store: PassageStore,
        tokenizer: PromptTokenizer,
        on_change: OnChange = lambda _counts, _summary: None,
    ) -> None:
        self.store = store
        self._refresher = Refresher(store)
        self._tokenizer = tokenizer
        self._on_change = on_change
        self._secret = secrets.token_bytes(32)
        self._tokens: LRUCache[str, tuple[int, ...]] = LRUCache(_MAX_CACHED)
        self._summary: ContextSummary | None = None
        self._counts: StoreCounts | None = None
        self._failure = ""
        self._lock = threading.RLock()

    @property
    def root(self) -> Path | None:
        """The file or folder that it is of."""
        return self.store.root

    @property
    def summary(self) -> ContextSummary:
        """Counts at the last look; looks if there was none."""
        if self._summary is None:
            self.refresh()
        return self._summary or ContextSummary()

    def refresh(self) -> bool:
        """Look for changes; whether there were any.

        A context that cannot be read is in the log and the summary.
        """
        before = self._counts
        with suppress(ContextUnreadableError):  # it is noted
            self._look(_PATIENCE_S)
        return self._counts != before

    def most_tokens(self, wish: Wish) -> tuple[int, ContextSummary]:
        """Tokens that `choose` gives at most, and counts; raises as that."""
        summary, most = self._look(_SESSION_PATIENCE_S), wish.max_tokens
        is_counted = self.store.counts.num_chars <= _SAMPLE_CHARS
        if most is None or (is_counted and summary.num_tokens < most):
            return summary.num_tokens, summary
        return most, summary

    def choose(self, wish: Wish, patterns: Sequence[Pattern] = ()) -> ChosenText:
        """What takes part, of the text as it is now.

        Args:
            wish: what is wanted of it.
            patterns: what its owner lets nobody have.

        Raises:
            ContextUnreadableError: the context cannot be read; the log names it.
            PolicyRefusedError: a pattern takes too long to find.
        """
        summary = self._look(_SESSION_PATIENCE_S)
        with self._lock:
            choice = choose(self.store, wish, lambda passage: len(self._tokenize(passage)))
            chosen = choice.passages
            tokens = [self._tokenize(passage) for passage in chosen]
        if wish.max_tokens is not None and len(tokens) == 1:  # the only one may be too long
            tokens = [tokens[0][: wish.max_tokens]]
        token_ids = [token for one in tokens for token in one]
        withheld = self._withheld(chosen, tokens, patterns)
        spans = zip(chosen, tokens, strict=True)
        return ChosenText(
            token_ids=token_ids,
            version=self._version(token_ids, withheld),
            summary=summary,
            passages=chosen,
            fit=round(choice.fit * _FIT_STEPS) / _FIT_STEPS,
            spans=tuple(PassageSpan(passage.number, len(own)) for passage, own in spans),
            withheld=withheld,
        )

    def close(self) -> None:
        """End the store."""
        self._refresher.close()

    def _tokenize(self, passage: Passage) -> tuple[int, ...]:
        tokens = self._tokens.get(passage.text)  # a store that is built anew repeats numbers
        if tokens is None:
            tokens = self._tokens[passage.text] = tuple(self._tokenizer.context(passage.text))
        return tokens

    def _withheld(
        self,
        passages: Sequence[Passage],
        tokens: Sequence[tuple[int, ...]],
        patterns: Sequence[Pattern],
    ) -> tuple[int, ...]:
        """Places of the tokens that patterns forbid to give."""
        found: list[int] = []
        begin = 0
        for passage, own in zip(passages, tokens, strict=True):
            if patterns:
                places = self._places(passage, patterns)
                found.extend(begin + place for place in places if place < len(own))
            begin += len(own)
        return tuple(found)

    def _places(self, passage: Passage, patterns: Sequence[Pattern]) -> tuple[int, ...]:
        """Tokens of one passage that patterns touch, also those that begin or end beside it."""
        before, after = (self._beside(passage, step) for step in (-1, 1))
        text, offsets = self._tokenizer.context_offsets(passage.text)
        shifted = [(start + len(before), stop + len(before)) for start, stop in offsets]
        return withheld_tokens(before + text.rstrip() + after, shifted, patterns)

    def _beside(self, passage: Passage, step: int) -> str:
        """The text of the passage before or after, with the space between; empty at an end."""
        other = self.store.get(passage.number + step)
        if other is None or other.file != passage.file:
            return ""
        return f"{other.text} " if step < 0 else f" {other.text}"

    def _version(self, token_ids: list[int], withheld: tuple[int, ...]) -> bytes:
        """Keyed by a secret of this process, so that nobody can try texts against it."""
        parts = [np.asarray(part, dtype="<i8").tobytes() for part in (token_ids, withheld)]
        sized = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
        return hmac.digest(self._secret, sized, hashlib.sha256)[:VERSION_SIZE]

    def _look(self, wait_s: float) -> ContextSummary:
        """Bring the store up to date, as far as that can be done in a while.

        Raises:
            ContextUnreadableError: the context cannot be read.
        """
        try:
            self._refresher.look(wait_s)
        except CannotReadError as error:
            self._note_failure(str(error))
            raise ContextUnreadableError(
                f"its private context cannot be read ({error}); its log names it"
            ) from None
        with self._lock:
            counts = self.store.counts
            if self._summary is None or counts != self._counts or self._failure:
                self._counts, self._failure = counts, ""
                self._summary = self._summarize(counts)
                self._on_change(counts, self._summary)
            return self._summary

    def _summarize(self, counts: StoreCounts) -> ContextSummary:
        if self.store.root is None:
            return ContextSummary()
        reasons = (skipped.reason for skipped in counts.skipped)
        num_tokens = self._estimate_tokens(counts)
        return ContextSummary.count(num_tokens, counts.num_passages, counts.num_files, reasons)

    def _estimate_tokens(self, counts: StoreCounts) -> int:
        """All tokens of a short text; of a long one an estimate by its beginning."""
        num_tokens, num_chars = 0, 0
        for passage in self.store.first(_SAMPLE_PASSAGES):
            num_tokens += len(self._tokenize(passage))
            num_chars += len(passage.text)
            if num_chars >= _SAMPLE_CHARS:
                break
        return round(num_tokens * max(1.0, counts.num_chars / max(1, num_chars)))

    def _note_failure(self, why: str) -> None:
        if why != self._failure:
            self._failure = why
            log.error("context_unreadable", path=one_line(str(self.store.root)), why=why)
        self._summary = ContextSummary.count(0, 0, 0, [SkipReason.UNREADABLE])
