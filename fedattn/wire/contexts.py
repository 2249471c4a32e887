"""Counts of private contexts on the wire. Everything from the wire is checked here."""

from fedattn.core.contexts import ContextSummary, SkipReason
from fedattn.core.errors import InvalidRequestError
from fedattn.wire.convert import require_range
from fedattn.wire.enums import SKIP_REASONS
from fedattn.wire.v1 import session_pb2

_MAX_COUNT = 1 << 31
_MAX_TOKENS = 1 << 40


def context_to_wire(summary: ContextSummary) -> session_pb2.ContextSummary:
    """The counts as a message."""
    return session_pb2.ContextSummary(
        is_given=summary.is_given,
        num_tokens=summary.num_tokens,
        num_passages=summary.num_passages,
        num_files=summary.num_files,
        skipped=[
            session_pb2.SkippedFiles(reason=SKIP_REASONS.to_wire(reason), count=count)
            for reason, count in summary.skipped
        ],
    )


def context_from_wire(message: session_pb2.ContextSummary) -> ContextSummary:
    """Check and convert the counts.

    Raises:
        InvalidRequestError: a count is out of range, or a reason unknown or told twice.
    """
    require_range("tokens of a context", message.num_tokens, 0, _MAX_TOKENS)
    require_range("passages of a context", message.num_passages, 0, _MAX_COUNT)
    require_range("files of a context", message.num_files, 0, _MAX_COUNT)
    require_range("reasons of skipped files", len(message.skipped), 0, len(SKIP_REASONS.core))
    counts = {SKIP_REASONS.from_wire(one.reason): one.count for one in message.skipped}
    if len(counts) < len(message.skipped):
        raise InvalidRequestError("skipped files: expected each reason once, got one twice")
    for reason, count in counts.items():
        require_range(f"files skipped as {reason.words}", count, 1, _MAX_COUNT)
    return ContextSummary(
        is_given=message.is_given,
        num_tokens=message.num_tokens,
        num_passages=message.num_passages,
        num_files=message.num_files,
        skipped=tuple((reason, counts[reason]) for reason in SkipReason if reason in counts),
    )
