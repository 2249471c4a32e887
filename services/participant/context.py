"""The private context of a node: read from disk, tokenized, never sent."""

import hashlib
import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from fedattn.core.contexts import ContextSummary, SkipReason
from fedattn.core.errors import ConfigurationError, ContextUnreadableError
from fedattn.model.prompt import PromptTokenizer
from fedattn.texts.loading import Texts, decode_all, load
from services.participant.context_log import printable
from services.participant.withheld import Pattern, withheld_tokens

VERSION_SIZE = 16

_HARMLESS = {SkipReason.EMPTY, SkipReason.BLANK}
"""A single file may be so; it has nothing to give, but nothing is wrong with reading it."""

log = structlog.get_logger(__name__)


class CannotReadError(Exception):
    """Why a context cannot be read; names no file, so that others may know."""


@dataclass(slots=True)
class PrivateContext:
    """Text of a file or folder, as it is now.

    Whether it has changed is decided by its content (SHA-256 of all names and bytes), since size
    and times may stay while a text changes. The price of a look, measured on one core of a server
    with files in the page cache: 0.1 ms a file and 2.4 ms a MiB, so 0.2 ms for one of 64 KiB and
    38 ms for 16 MiB, the most that is read; decoding and tokenizing follow only after a change.
    """

    path: Path | None
    encoding: str | None = None
    """Of files that are neither UTF-8 nor UTF-16; None if only a certain one counts."""
    _digest: bytes = b""
    _texts: Texts = field(default_factory=Texts)

    def read(self) -> Texts:
        """The current text, and the files that are not in it; nothing without a path.

        Raises:
            CannotReadError: the folder, or the file that was given, cannot be read.
        """
        if self.path is None:
            return self._texts
        try:
            loaded = load(self.path)
            is_folder = self.path.is_dir()
        except OSError as error:
            raise CannotReadError((error.strerror or type(error).__name__).lower()) from None
        digest = loaded.digest()
        if digest != self._digest:
            self._texts = decode_all(loaded, self.encoding)
            self._digest = digest
        if not is_folder:
            for skipped in self._texts.skipped:
                if skipped.reason not in _HARMLESS:
                    raise CannotReadError(skipped.reason.words)
        return self._texts

    def text(self) -> str:
        """The current text; raises as `read`."""
        return self.read().text


def check_context(path: Path | None, encoding: str | None) -> None:
    """Read a context once, before anything slow begins.

    Raises:
        ConfigurationError: it cannot be read; names it.
    """
    try:
        PrivateContext(path, encoding).read()
    except CannotReadError as error:
        raise ConfigurationError(
            f"the context {path} cannot be read: {error}; expected a text, or a folder of texts, "
            f"that this process may read"
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextSnapshot:
    """A context at one moment.

    Attributes:
        token_ids: of a contributor's span, without any prefix.
        text: that they are tokens of.
        withheld: tokens, counted from the first, whose rows its owner lets nobody have.
        version: drawn at random at each change of the text; says nothing of what it is.
        summary: counts that others may know.
    """

    token_ids: list[int]
    version: bytes
    summary: ContextSummary
    text: str = field(default="", repr=False)
    withheld: tuple[int, ...] = ()

    def after(self, prefix: list[int]) -> "ContextSnapshot":
        """The same behind tokens that are this node's to give too."""
        shifted = tuple(index + len(prefix) for index in self.withheld)
        return replace(self, token_ids=prefix + self.token_ids, withheld=shifted)


OnChange = Callable[[Texts, ContextSummary], None]
"""Told of each change of what is read or left out."""


@dataclass(frozen=True, slots=True)
class _Searched:
    """Tokens that are withheld, in one version of the text and by one list of patterns."""

    key: tuple[bytes, tuple[Pattern, ...]]
    withheld: tuple[int, ...]


@dataclass(slots=True)
class ContextTokens:
    """Token ids of the context, and those withheld, computed again only when something changes."""

    context: PrivateContext
    tokenizer: PromptTokenizer
    on_change: OnChange = lambda _texts, _summary: None
    _texts: Texts | None = None
    _failure: str = ""
    _token_ids: tuple[int, ...] = ()
    _version: bytes = b""
    _summary: ContextSummary | None = None
    _searched: _Searched | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def current(self) -> list[int]:
        """Token ids as in `snapshot`."""
        return self.snapshot().token_ids

    def snapshot(self) -> ContextSnapshot:
        """What there is now.

        Raises:
            ContextUnreadableError: the context cannot be read; the log names it.
        """
        with self._lock:  # sessions tokenize in threads of their own
            try:
                texts = self.context.read()
            except CannotReadError as error:
                self._note_failure(str(error))
                raise ContextUnreadableError(
                    f"its private context cannot be read ({error}); its log names it"
                ) from None
            summary = self._take(texts)
            return ContextSnapshot(
                token_ids=list(self._token_ids),
                version=self._version,
                summary=summary,
                text=texts.text,
            )

    def withholding(self, patterns: Sequence[Pattern]) -> ContextSnapshot:
        """What there is now, with the tokens that patterns forbid to give.

        Raises:
            ContextUnreadableError: as `snapshot`.
            PolicyRefusedError: a pattern takes too long to find.
        """
        snapshot = self.snapshot()
        if not patterns:
            return snapshot
        searched, key = self._searched, (snapshot.version, tuple(patterns))
        if searched is None or searched.key != key:
            offsets = self.tokenizer.context_offsets(snapshot.text)
            searched = self._searched = _Searched(key, withheld_tokens(*offsets, patterns))
        withheld = searched.withheld
        mark = hashlib.sha256(snapshot.version + repr(withheld).encode()).digest()
        return replace(snapshot, withheld=withheld, version=mark[:VERSION_SIZE])

    @property
    def summary(self) -> ContextSummary:
        """Counts at the last look; looks if there was none."""
        if self._summary is None:
            self.refresh()
        return self._summary or ContextSummary()

    def refresh(self) -> None:
        """Look for changes; a context that cannot be read is in the log and the summary."""
        with suppress(ContextUnreadableError):  # it is noted
            self.snapshot()

    def _take(self, texts: Texts) -> ContextSummary:
        if self._summary is not None and texts is self._texts and not self._failure:
            return self._summary
        if self._texts is None or texts.text != self._texts.text:
            self._token_ids = tuple(self.tokenizer.context(texts.text))
            self._version = secrets.token_bytes(VERSION_SIZE)
        self._texts, self._failure = texts, ""
        reasons = (skipped.reason for skipped in texts.skipped)
        self._summary = (
            ContextSummary()
            if self.context.path is None
            else ContextSummary.count(len(self._token_ids), texts.num_files, reasons)
        )
        self.on_change(texts, self._summary)
        return self._summary

    def _note_failure(self, why: str) -> None:
        if why != self._failure:
            self._failure = why
            log.error("context_unreadable", path=printable(str(self.context.path)), why=why)
        self._summary = ContextSummary.count(0, 0, [SkipReason.UNREADABLE])
