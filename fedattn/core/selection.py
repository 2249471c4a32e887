"""Row selection (paper: sparse KV exchange): which rows of a span travel at a sync layer.

`learned` scores rows of every head apart (`fedattn.core.row_scores`), and each head keeps a set of
its own, as large as its share in the profile. Every other selector is one pure function that scores
tokens, for all heads the same. To add one: write it here and list it in `SELECTORS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fedattn.core.errors import InvalidRequestError, PolicyRefusedError
from fedattn.core.types import FloatArray, HeadCounts, HeadRows, IntArray, KvRows

MAX_KEEP_ENDS = 1024
LEARNED = "learned"
DEFAULT_SELECTOR = "value-weighted"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpanRows:
    """One layer of one participant's own span, as selectors see it.

    Attributes:
        rows: all T of them, keys after RoPE.
        random: generator seeded for this query, span and layer.
    """

    rows: KvRows
    random: np.random.Generator


Selector: TypeAlias = Callable[[SpanRows], FloatArray]
"""Scores [T]; larger is kept first."""


def random_rows(span: SpanRows) -> FloatArray:
    """Uniformly at random, afresh at each layer (the paper's)."""
    return span.random.random(span.rows.num_rows, dtype=np.float32)


def recency(span: SpanRows) -> FloatArray:
    """The last rows of the span."""
    return span.rows.positions.astype(np.float32)


def value_weighted(span: SpanRows) -> FloatArray:
    """Keys unlike the mean direction of their span (KeyDiff, arXiv 2504.15364), weighted by how
    much the value can add to an output.
    """
    size: FloatArray = np.linalg.norm(span.rows.values, axis=-1).mean(axis=0)
    return (1 - _likeness_to_mean(span.rows.keys)) * size


SELECTORS: dict[str, Selector] = {
    "random": random_rows,
    "recency": recency,
    "value-weighted": value_weighted,
}
SELECTOR_NAMES: tuple[str, ...] = (LEARNED, *SELECTORS)


def check_selector(name: str) -> str:
    """`name`, if there is such a selector.

    Raises:
        InvalidRequestError: there is none.
    """
    if name not in SELECTOR_NAMES:
        raise InvalidRequestError(
            f"unknown selector {name[:40]!r}; choose one of {', '.join(SELECTOR_NAMES)}"
        )
    return name


def token_scores(rows: KvRows, selector: str, random: np.random.Generator) -> FloatArray:
    """Scores of each token, the same for every head: [Hkv, T]."""
    scores = SELECTORS[selector](SpanRows(rows=rows, random=random))
    return np.broadcast_to(scores, (rows.keys.shape[0], rows.num_rows))


def select_rows(
    rows: KvRows,
    scores: FloatArray,
    counts: HeadCounts,
    *,
    keep_ends: int = 0,
    withheld: IntArray | None = None,
) -> HeadRows:
    """The rows to send: of each head those with the best scores.

    Args:
        rows: T of them.
        scores: [Hkv, T]; larger is kept first. Of equal ones the earlier row is.
        counts: how many each head keeps, at most T less those withheld.
        keep_ends: rows at each end of the span that go before any other.
        withheld: indices of rows that never go; None for none.

    Raises:
        PolicyRefusedError: so many do not remain.
    """
    num_rows = rows.num_rows
    num_free = num_rows - (0 if withheld is None else len(withheld))
    if max(counts) > num_free:
        raise PolicyRefusedError(f"{max(counts)} rows are to travel, its owner lets {num_free}")
    least = -np.finfo(np.float64).max  # no score, whatever it is, comes behind what is withheld
    ranked = np.nan_to_num(scores.astype(np.float64), nan=least, neginf=least)
    ranked[:, :keep_ends] = np.inf
    ranked[:, max(0, num_rows - keep_ends) :] = np.inf
    if withheld is not None:
        ranked[:, withheld] = -np.inf
    order = np.argsort(-ranked, axis=1, kind="stable")
    chosen = [np.sort(order[head, :count]) for head, count in enumerate(counts)]
    return HeadRows(
        keys=np.concatenate([rows.keys[head, kept] for head, kept in enumerate(chosen)]),
        values=np.concatenate([rows.values[head, kept] for head, kept in enumerate(chosen)]),
        positions=rows.positions[np.concatenate(chosen)],
        counts=counts,
    )


def _likeness_to_mean(keys: FloatArray) -> FloatArray:
    """Cosine of each key and the mean direction of its head, mean over heads, [T]."""
    unit = keys / np.maximum(np.linalg.norm(keys, axis=-1, keepdims=True), np.float32(1e-12))
    mean = unit.mean(axis=1, keepdims=True)
    mean /= np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), np.float32(1e-12))
    likeness: FloatArray = (unit * mean).sum(axis=-1).mean(axis=0)
    return likeness
