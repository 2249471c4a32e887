"""What the node could contribute: counts of its private text, and never a word of it."""

from collections.abc import Iterator
from pathlib import Path

from fedattn.cli.doctor.finding import Found, ok, problem, skipped, warning
from fedattn.cli.doctor.subject import Subject
from fedattn.core.contexts import ContextSummary, SkipReason
from fedattn.core.errors import ModelError
from fedattn.runtime.extras import require_extras

_REMEDIES = {
    SkipReason.UNDECODABLE: "name their encoding with --context-encoding, such as cp1252",
    SkipReason.UNREADABLE: "let the user of the node read them, and see that documents open",
    SkipReason.OUTSIDE: "put the files themselves into the folder, no links out of it",
    SkipReason.TOO_LARGE: "split them",
    SkipReason.TOO_MANY: "give folders with fewer files",
}
"""For what an owner would not have wanted; other reasons are as it should be."""
_KINDS = "docs/texts.md says which kinds are read; pip install 'fedattn[documents]' reads PDF, docx"


def check_context(subject: Subject) -> Iterator[Found]:
    """Reads the text as the node would, in memory, for as long as the check may take."""
    require_extras("participant")
    path = subject.settings.context
    if path is None:
        yield skipped("no text is set: the node can ask, and has nothing to give")
        return
    from fedattn.texts.checking import check_context as check_readable

    check_readable(path, subject.settings.context_encoding)  # raises what the service ends with
    yield from describe(path, _count(path, subject))


def describe(path: Path, summary: ContextSummary) -> Iterator[Found]:
    """What the counts mean for the owner."""
    left_out = summary.describe_skipped()
    if summary.num_passages == 0:
        yield problem(f"{path}: {summary.describe_empty()}", _remedy(summary) or _KINDS)
        return
    tokens = f", tokens: about {summary.num_tokens}" if summary.num_tokens else ""
    yield ok(f"{path}: files: {summary.num_files}, passages: {summary.num_passages}{tokens}")
    if remedy := _remedy(summary):
        yield warning(left_out, f"{remedy}; the node's log names each file")
    elif left_out:
        yield ok(left_out)


def _remedy(summary: ContextSummary) -> str:
    return "; ".join(_REMEDIES[reason] for reason, _ in summary.skipped if reason in _REMEDIES)


def _count(path: Path, subject: Subject) -> ContextSummary:
    """What others would be told of the text; without tokens if no model is prepared."""
    from fedattn.model.loading import load_tokenizer
    from fedattn.model.prepare import find_prepared
    from fedattn.model.prompt import PromptTokenizer
    from fedattn.passages.store import PassageStore
    from services.participant.context import PrivateContext

    store = PassageStore(path, None, encoding=subject.settings.context_encoding)
    try:
        prepared = find_prepared(subject.settings.model)
    except ModelError:  # has a line of its own
        prepared = None
    if prepared is not None:
        context = PrivateContext(store, PromptTokenizer(load_tokenizer(prepared)))
        try:
            return context.summary
        finally:
            context.close()
    try:
        store.refresh()
        counts = store.counts
        reasons = (file.reason for file in counts.skipped)
        return ContextSummary.count(0, counts.num_passages, counts.num_files, reasons)
    finally:
        store.close()
