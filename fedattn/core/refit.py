"""Refitting the rows that travel, so that they say what all rows said.

Rows that are left out take attention with them. Attention matching (arXiv 2602.16284) makes up for
that: each kept row gets a bias on its score, so that the kept rows together draw the attention that
all rows drew, and its value is moved by least squares, so that they give the output that all gave.

It is matched for queries that might come. The owner does not know the question, but it has the
queries of its own tokens: turned by RoPE to positions behind the span they serve nearly as well as
those of a replay of the whole text, and cost nothing.

With scores s_qj of query q and row j, kept rows K and all rows A of one head:

    bias b_j     sum_K exp(s_qj + b_j) ~ sum_A exp(s_qj)                 for every q
    value v_j    sum_K exp(s_qj + b_j) v_j ~ sum_A exp(s_qj) v'_j        near to the old v'_j
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fedattn.core.rotary import Rotary
from fedattn.core.types import FloatArray, HeadRows, IntArray, KvRows

MAX_QUERIES = 128
"""Tokens of a span whose queries are matched, evenly spaced: twice as many gain nothing in KL."""
MAX_PIECE = 512
"""Rows that are matched at once; longer spans go piece by piece, so that time grows with length."""
MAX_BIAS = 7.0
_STEPS = 20
"""Of the weights; few, so that no row takes all."""
_RIDGE = 0.5
"""Pull of values to what they were, against the mean weight that the queries give a row."""
_FLOOR = 1e-3


def behind_span(queries: FloatArray, rotary: Rotary) -> FloatArray:
    """Queries [Hq, T, D] of a span as they would be behind it: at most MAX_QUERIES of T tokens."""
    num_tokens = queries.shape[1]
    places = np.linspace(0, num_tokens - 1, num=min(num_tokens, MAX_QUERIES)).astype(np.int64)
    return rotary.apply(queries[:, places], np.array([num_tokens]))


def refit_rows(kept: HeadRows, rows: KvRows, free: IntArray, queries: FloatArray) -> HeadRows:
    """Kept rows with biases, and values that make up for the rows that are left out.

    Args:
        kept: of each head, some of `rows`.
        rows: all T of the span.
        free: indices of those that may travel; what others hold must not show in values.
        queries: [Hq, Q, D] float32 behind the span, scaled as attention scales them; Hq is a
            multiple of Hkv.
    """
    values, biases = kept.values.copy(), np.zeros(kept.num_rows, np.float32)
    groups = queries.reshape(len(rows.keys), -1, queries.shape[2])
    pieces = np.array_split(free, -(-len(free) // MAX_PIECE))
    for head, here in enumerate(kept.heads):
        stop = here.start
        for piece in pieces:
            inside = _are_in(rows.positions[piece], kept.positions[here])
            begin, stop = stop, stop + int(inside.sum())
            if 0 < stop - begin < len(piece):
                keys, old = rows.keys[head, piece], rows.values[head, piece]
                biases[begin:stop], values[begin:stop] = refit_head(
                    groups[head], keys, old, np.flatnonzero(inside)
                )
    return replace(kept, values=values, biases=biases)


def _are_in(positions: IntArray, kept: IntArray) -> npt.NDArray[np.bool_]:
    """Which of some positions are kept ones; both are sorted."""
    if not len(kept):
        return np.zeros(len(positions), dtype=np.bool_)
    places = np.minimum(np.searchsorted(kept, positions), len(kept) - 1)
    found: npt.NDArray[np.bool_] = kept[places] == positions
    return found


def refit_head(
    queries: FloatArray, keys: FloatArray, values: FloatArray, kept: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Biases [K] and values [K, D] of the kept rows of one head.

    No value comes out longer than the longest that went in, so that receivers' bounds hold.

    Args:
        queries: [Q, D] float32, scaled.
        keys: [T, D] float32.
        values: [T, D] float32.
        kept: indices of K rows, sorted.
    """
    order = np.concatenate([kept, np.delete(np.arange(len(keys)), kept)])  # kept columns in front
    scores = queries @ keys[order].T
    scores -= scores.max(axis=1, keepdims=True)
    attention = np.exp(scores, out=scores)
    attention /= attention.sum(axis=1, keepdims=True)
    of_kept = attention[:, : len(kept)]
    gram = of_kept.T @ of_kept
    weights = _weights(gram, of_kept)
    gram *= weights[:, None] * weights
    ridge = np.float32(max(_RIDGE * float(np.trace(gram)) / len(kept), _FLOOR**2))
    target = weights[:, None] * (of_kept.T @ (attention @ values[order])) + ridge * values[kept]
    gram[np.diag_indices_from(gram)] += ridge
    moved = np.linalg.solve(gram, target)
    longest = np.linalg.norm(values, axis=1).max()
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    moved *= np.minimum(1, longest / np.maximum(lengths, np.float32(1e-20)))
    return np.log(weights), moved


def _weights(gram: FloatArray, of_kept: FloatArray) -> FloatArray:
    """Weights [K] above 0 that make the attention [Q, K] of the kept rows add up to 1 a query.

    Least squares by multiplicative updates (Lee and Seung, NIPS 2000), from one common weight.

    Args:
        gram: [K, K] products of the columns of `of_kept`.
        of_kept: attention of each query to each kept row.
    """
    target, sums = of_kept.sum(axis=0), of_kept.sum(axis=1)
    common = float(sums.sum()) / max(float(sums @ sums), _FLOOR**2)
    weights = np.full(len(gram), common, np.float32)
    for _ in range(_STEPS):
        weights *= (target + np.float32(_FLOOR)) / (gram @ weights + np.float32(_FLOOR))
    limit = np.float32(np.exp(MAX_BIAS))
    return np.clip(weights, 1 / limit, limit)
