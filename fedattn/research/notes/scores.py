"""What came of questions over notes, summed up."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fedattn.research.notes.run import NotesScore

ABSENT = "absent"
"""Kind of questions that no text answers; right is to say so."""


def summarize(scores: Sequence[NotesScore]) -> dict[str, Any]:
    """Counts, means and medians of one variant, as JSON values."""
    answerable = [score for score in scores if score.kind != ABSENT]
    others = [score for score in scores if score.kind == ABSENT]
    cold = [score.prefill_s for score in scores if score.prefill_s is not None]
    kinds = Counter(score.kind for score in scores)
    right = Counter(score.kind for score in scores if score.is_right)
    return {
        "questions": len(answerable),
        "right": sum(score.is_right for score in answerable),
        "there": sum(score.is_there for score in answerable),
        "absent": len(others),
        "absent_said": sum(score.is_right for score in others),
        "tokens": round(statistics.fmean(score.num_tokens for score in scores)),
        "passages": statistics.fmean(score.num_passages for score in scores),
        "kv_bytes": round(statistics.fmean(score.kv_bytes for score in scores)),
        "prefill_s": statistics.median(cold) if cold else None,
        "decode_s": statistics.median(score.decode_s for score in scores),
        "by_kind": {kind: [right[kind], count] for kind, count in sorted(kinds.items())},
    }


def paired_difference(
    scores: Sequence[NotesScore], others: Sequence[NotesScore]
) -> tuple[float, float]:
    """Mean difference of right answers, of 1, and the half width of its 95 % interval.

    Args:
        scores: of one variant.
        others: of another over the same questions, in the same order.
    """
    pairs = [
        float(one.is_right) - float(other.is_right)
        for one, other in zip(scores, others, strict=True)
        if one.kind != ABSENT
    ]
    spread = statistics.stdev(pairs) if len(pairs) > 1 else 0.0
    return statistics.fmean(pairs), 1.96 * spread / math.sqrt(len(pairs))
