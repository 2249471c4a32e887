"""What a node's own log says of its private context: here, and only here, by file name."""

import structlog

from fedattn.core.contexts import ContextSummary, SkipReason
from fedattn.core.printable import one_line
from fedattn.passages.passage import StoreCounts
from fedattn.texts.listing import MAX_ENTRIES, SUFFIXES, SkippedFile

log = structlog.get_logger(__name__)

_MAX_NAMES = 100
"""Skipped files that are named at each change; the rest is counted."""
_REMEDIES = {
    SkipReason.UNKNOWN_KIND: "rename it if its suffix is not that of its kind, such as a PDF to "
    f".pdf; known kinds of text: {' '.join(sorted(SUFFIXES))}",
    SkipReason.EMPTY: "it has no bytes",
    SkipReason.BLANK: "it has no text",
    SkipReason.BINARY: "it is no text; export it as one",
    SkipReason.UNDECODABLE: "its encoding is not certain; save it as UTF-8, or name its encoding "
    "with --context-encoding",
    SkipReason.TOO_LARGE: "a file of this kind must be read whole and is too large; split it",
    SkipReason.TOO_MANY: f"{MAX_ENTRIES} entries are looked at; this one and others are not",
    SkipReason.UNREADABLE: "this process may not read it, or it is no regular file, or a document "
    "that is damaged or wants a password",
    SkipReason.OUTSIDE: "the link leads out of the folder; copy the file into it",
    SkipReason.DUPLICATE: "it is read already under another name",
}


class ContextLog:
    """Writes down what is read, and once what is left out and why."""

    def __init__(self) -> None:
        self._skipped: tuple[SkippedFile, ...] = ()

    def __call__(self, counts: StoreCounts, summary: ContextSummary) -> None:
        """Told of every change."""
        _log_counts(summary)
        if counts.skipped != self._skipped:
            self._skipped = counts.skipped
            _log_skipped(counts.skipped)


def _log_counts(summary: ContextSummary) -> None:
    log.info(
        "context_read",
        files=summary.num_files,
        passages=summary.num_passages,
        tokens=summary.num_tokens,
    )
    if summary.is_given and summary.is_empty:
        log.error(
            "nothing_to_give",
            why=summary.describe_empty(),
            consequence="queries go on without this node and report it as empty",
        )


def _log_skipped(skipped: tuple[SkippedFile, ...]) -> None:
    for file in skipped[:_MAX_NAMES]:
        log.warning(
            "file_skipped",
            file=one_line(file.name),
            reason=file.reason.words,
            remedy=_REMEDIES[file.reason],
        )
    if len(skipped) > _MAX_NAMES:
        log.warning("files_skipped", more=len(skipped) - _MAX_NAMES)
