"""What a node's own log says of its private context: here, and only here, by file name."""

import structlog

from fedattn.core.contexts import ContextSummary, SkipReason, WindowUse
from fedattn.texts.listing import MAX_ENTRIES, SUFFIXES
from fedattn.texts.loading import MAX_BYTES, Texts

log = structlog.get_logger(__name__)

_MAX_NAMES = 100
"""Skipped files that are named at each change; the rest is counted."""
_REMEDIES = {
    SkipReason.UNKNOWN_KIND: f"known kinds of text: {' '.join(sorted(SUFFIXES))}",
    SkipReason.EMPTY: "it has no bytes",
    SkipReason.BLANK: "it has no text",
    SkipReason.BINARY: "it is no text; export it as one",
    SkipReason.UNDECODABLE: "its encoding is not certain; save it as UTF-8, or name its encoding "
    "with --context-encoding",
    SkipReason.TOO_LARGE: f"all files together may have {MAX_BYTES >> 20} MiB; split or shorten it",
    SkipReason.TOO_MANY: f"{MAX_ENTRIES} entries are looked at; this one and others are not",
    SkipReason.UNREADABLE: "this process may not read it, or it is no regular file",
    SkipReason.OUTSIDE: "the link leads out of the folder; copy the file into it",
    SkipReason.DUPLICATE: "it is read already under another name",
}


class ContextLog:
    """Told of every change of a context.

    Args:
        prefix_tokens: tokens of the public prefix.
        window: tokens the model can see.
    """

    def __init__(self, prefix_tokens: int, window: int) -> None:
        self._prefix_tokens = prefix_tokens
        self._window = window

    def __call__(self, texts: Texts, summary: ContextSummary) -> None:
        """Write down what is read, what is left out and why, and what cannot work."""
        log.info("context_read", files=summary.num_files, tokens=summary.num_tokens)
        for file in texts.skipped[:_MAX_NAMES]:
            log.warning(
                "file_skipped",
                file=printable(file.name),
                reason=file.reason.words,
                remedy=_REMEDIES[file.reason],
            )
        if len(texts.skipped) > _MAX_NAMES:
            log.warning("files_skipped", more=len(texts.skipped) - _MAX_NAMES)
        if summary.is_given and summary.is_empty:
            log.error(
                "nothing_to_give",
                why=summary.describe_empty(),
                consequence="queries go on without this node and report it as empty",
            )
        alone = WindowUse(
            num_nodes=1, num_tokens=self._prefix_tokens + summary.num_tokens, window=self._window
        )
        if alone.is_tight:
            log_window(alone)


def log_window(use: WindowUse) -> None:
    """Say whether a query over all joined nodes fits the model's window."""
    numbers = {"nodes": use.num_nodes, "tokens": use.num_tokens, "window": use.window}
    if use.is_tight:
        log.warning("window_too_small", **numbers, error=use.describe())
    else:
        log.info("window_fits", **numbers)


def printable(name: str) -> str:
    """A file name without control characters and bytes that are no text."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in name)
