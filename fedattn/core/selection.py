"""Row selection (paper: sparse KV exchange): which rows of a span travel at a sync layer.

A selector is one pure function that scores rows; the best ones travel. To add one: write it here
and list it in `SELECTORS` under its name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fedattn.core.errors import InvalidRequestError, PolicyRefusedError
from fedattn.core.types import FloatArray, IntArray, Queries

MAX_KEEP_ENDS = 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpanRows:
    """One layer of one participant's own span, as selectors see it.

    Attributes:
        queries: fetches [Hq, T, D] float32, after RoPE; Hq is a multiple of Hkv.
        keys: [Hkv, T, D] float32, after RoPE.
        values: [Hkv, T, D] float32.
        positions: [T] int64, global.
        random: generator seeded for this query, span and layer.
    """

    queries: Queries
    keys: FloatArray
    values: FloatArray
    positions: IntArray
    random: np.random.Generator


Selector: TypeAlias = Callable[[SpanRows], FloatArray]
"""Scores [T]; larger is kept first."""


def random_rows(rows: SpanRows) -> FloatArray:
    """Uniformly at random, afresh at each layer (the paper's)."""
    return rows.random.random(len(rows.positions), dtype=np.float32)


def recency(rows: SpanRows) -> FloatArray:
    """The last rows of the span."""
    return rows.positions.astype(np.float32)


def key_norm(rows: SpanRows) -> FloatArray:
    """Small keys first: they draw the most attention (Devoto et al., arXiv 2406.11430)."""
    norms: FloatArray = np.linalg.norm(rows.keys, axis=-1).mean(axis=0)
    return -norms


def key_difference(rows: SpanRows) -> FloatArray:
    """Keys unlike the mean direction of their span (KeyDiff, arXiv 2504.15364)."""
    return -_likeness_to_mean(rows.keys)


def value_weighted(rows: SpanRows) -> FloatArray:
    """Key difference, weighted by how much the value can add to an output."""
    size: FloatArray = np.linalg.norm(rows.values, axis=-1).mean(axis=0)
    return (1 - _likeness_to_mean(rows.keys)) * size


def own_attention(rows: SpanRows) -> FloatArray:
    """Mean attention a row gets from later rows of its own span (H2O, arXiv 2306.14048).

    Computed over at most 64 queries, evenly spaced, so that long spans stay cheap.
    """
    num_rows = len(rows.positions)
    picked = np.unique(np.linspace(0, num_rows - 1, num=min(num_rows, _MAX_QUERIES)).astype(int))
    heads = rows.keys.shape[0]
    queries = rows.queries()[:, picked].reshape(heads, -1, len(picked), rows.keys.shape[2])
    scores = queries @ rows.keys[:, None].swapaxes(-1, -2)  # [Hkv, Hq / Hkv, Q, T]
    scores *= np.float32(rows.keys.shape[2] ** -0.5)
    later = picked[:, None] >= np.arange(num_rows)[None, :]
    scores = np.where(later, scores, -np.inf)
    scores -= scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores)
    weights /= weights.sum(axis=-1, keepdims=True)
    received: FloatArray = weights.sum(axis=(0, 1, 2)) / later.sum(axis=0)
    return received


_MAX_QUERIES = 64
DEFAULT_SELECTOR = "value-weighted"
SELECTORS: dict[str, Selector] = {
    "random": random_rows,
    "recency": recency,
    "key-norm": key_norm,
    "key-difference": key_difference,
    "value-weighted": value_weighted,
    "own-attention": own_attention,
}
SELECTOR_NAMES: tuple[str, ...] = tuple(SELECTORS)


def check_selector(name: str) -> str:
    """`name`, if there is such a selector.

    Raises:
        InvalidRequestError: there is none.
    """
    if name not in SELECTORS:
        raise InvalidRequestError(
            f"unknown selector {name[:40]!r}; choose one of {', '.join(SELECTOR_NAMES)}"
        )
    return name


def select_rows(
    rows: SpanRows,
    selector: str,
    count: int,
    *,
    keep_ends: int = 0,
    withheld: IntArray | None = None,
) -> IntArray:
    """Indices of the rows to send, sorted.

    Args:
        rows: T of them.
        selector: name of the scores.
        count: how many to keep, at most T less those withheld.
        keep_ends: rows at each end of the span that go before any other.
        withheld: indices of rows that never go; None for none.

    Returns:
        [count] int64, strictly increasing.

    Raises:
        PolicyRefusedError: so many do not remain.
    """
    num_rows = len(rows.positions)
    num_free = num_rows - (0 if withheld is None else len(withheld))
    if count > num_free:
        raise PolicyRefusedError(f"{count} rows are to travel, its owner lets {num_free}")
    if count >= num_rows:
        return np.arange(num_rows, dtype=np.int64)
    scores = SELECTORS[selector](rows).astype(np.float64)
    scores[:keep_ends] = np.inf
    scores[max(0, num_rows - keep_ends) :] = np.inf
    if withheld is not None:
        scores[withheld] = -np.inf
    best = np.argsort(-scores, kind="stable")[:count]  # ties: the earlier row
    return np.sort(best).astype(np.int64)


def _likeness_to_mean(keys: FloatArray) -> FloatArray:
    """Cosine of each key and the mean direction of its head, mean over heads, [T]."""
    unit = keys / np.maximum(np.linalg.norm(keys, axis=-1, keepdims=True), np.float32(1e-12))
    mean = unit.mean(axis=1, keepdims=True)
    mean /= np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), np.float32(1e-12))
    likeness: FloatArray = (unit * mean).sum(axis=-1).mean(axis=0)
    return likeness
