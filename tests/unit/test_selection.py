"""Row selection: what the scores mean, and that exactly the promised rows are kept."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.compression import num_kept
from fedattn.core.selection import SELECTOR_NAMES, SELECTORS, SpanRows, select_rows
from fedattn.core.types import FloatArray

each_selector = pytest.mark.parametrize("selector", SELECTOR_NAMES)


def span_rows(
    num_rows: int, *, seed: int = 0, head_dim: int = 4, scale: float = 1.0, start: int = 3
) -> SpanRows:
    """Random rows of two key/value heads and six query heads."""
    random = np.random.default_rng(seed)

    def draw(heads: int) -> FloatArray:
        return (random.normal(size=(heads, num_rows, head_dim)) * scale).astype(np.float32)

    queries = draw(6)
    return SpanRows(
        queries=lambda: queries,
        keys=draw(2),
        values=draw(2),
        positions=np.arange(start, start + num_rows),
        random=np.random.default_rng(seed),
    )


def one_head(keys: list[list[float]], values: list[list[float]] | None = None) -> SpanRows:
    rows = np.array([keys], dtype=np.float32)
    return SpanRows(
        queries=lambda: rows,
        keys=rows,
        values=np.array([values or keys], dtype=np.float32),
        positions=np.arange(len(keys)),
        random=np.random.default_rng(0),
    )


def dot(left: FloatArray, right: FloatArray) -> float:
    return math.fsum(float(a) * float(b) for a, b in zip(left, right, strict=True))


def slow_own_attention(rows: SpanRows) -> list[float]:
    """Sum over query heads of the mean weight each row gets from the queries that see it."""
    num_rows, head_dim = rows.keys.shape[1:]
    queries = rows.queries()
    group = queries.shape[0] // rows.keys.shape[0]
    received = [0.0] * num_rows
    for query_head in range(queries.shape[0]):
        keys = rows.keys[query_head // group]
        for i, query in enumerate(queries[query_head]):
            weights = [math.exp(dot(query, keys[j]) / math.sqrt(head_dim)) for j in range(i + 1)]
            for j, weight in enumerate(weights):
                received[j] += weight / sum(weights) / (num_rows - j)
    return received


def slow_key_difference(rows: SpanRows) -> list[float]:
    """Minus the cosine of each key and its head's mean direction, mean over heads."""
    heads, num_rows, head_dim = rows.keys.shape
    scores = [0.0] * num_rows
    for keys in rows.keys:
        units = [key / math.sqrt(dot(key, key)) for key in keys]
        mean = np.array([math.fsum(unit[d] for unit in units) / num_rows for d in range(head_dim)])
        length = math.sqrt(dot(mean, mean))
        for row, unit in enumerate(units):
            scores[row] -= dot(unit, mean) / length / heads
    return scores


@each_selector
@given(num_rows=st.integers(1, 200), seed=st.integers(0, 99), scale=st.sampled_from([0, 1e-30, 9]))
def test_scores_are_finite_one_a_row_and_always_the_same(
    selector: str, num_rows: int, seed: int, scale: float
) -> None:
    scores = SELECTORS[selector](span_rows(num_rows, seed=seed, scale=scale))
    assert scores.shape == (num_rows,)
    assert np.isfinite(scores).all()
    again = SELECTORS[selector](span_rows(num_rows, seed=seed, scale=scale))
    assert np.array_equal(scores, again)


@each_selector
@given(num_rows=st.integers(1, 40), seed=st.integers(0, 99), data=st.data())
def test_exactly_the_wanted_number_of_rows_is_kept_in_order(
    selector: str, num_rows: int, seed: int, data: st.DataObject
) -> None:
    count, keep_ends = data.draw(st.integers(1, num_rows)), data.draw(st.integers(0, 45))
    kept = select_rows(span_rows(num_rows, seed=seed), selector, count, keep_ends=keep_ends)
    assert kept.dtype == np.int64
    assert kept.shape == (count,)
    assert (np.diff(kept) > 0).all()
    assert kept[0] >= 0
    assert kept[-1] < num_rows
    ends = {row for row in range(num_rows) if row < keep_ends or row >= num_rows - keep_ends}
    assert ends <= set(kept.tolist()) or set(kept.tolist()) <= ends


def test_where_not_all_ends_fit_the_first_rows_are_kept() -> None:
    assert select_rows(span_rows(9), "recency", 3, keep_ends=2).tolist() == [0, 1, 7]
    assert select_rows(span_rows(9), "recency", 5, keep_ends=2).tolist() == [0, 1, 6, 7, 8]


def test_of_rows_alike_the_earlier_is_kept() -> None:
    assert select_rows(one_head([[1.0, 0.0]] * 5), "key-norm", 2).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("num_rows", "ratio", "kept"),
    [(5, 0.7, 3), (5, 0.1, 1), (5, 1.0, 5), (1, 0.01, 1), (0, 0.5, 0), (10, 0.5, 5),
     (10, 0.99, 9), (3, 1 / 3, 1), (1000, 0.001, 1), (1000, 1e-300, 1)],
)  # fmt: skip
def test_number_kept_is_the_papers(num_rows: int, ratio: float, kept: int) -> None:
    assert num_kept(num_rows, ratio) == kept


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_min=True))
def test_number_kept_is_one_at_least_and_all_at_most(num_rows: int, ratio: float) -> None:
    assert 1 <= num_kept(num_rows, ratio) <= num_rows


@pytest.mark.parametrize("num_rows", [1, 2, 5, 64])
@pytest.mark.parametrize("seed", [0, 1])
def test_own_attention_equals_the_slow_loop(num_rows: int, seed: int) -> None:
    rows = span_rows(num_rows, seed=seed)
    assert SELECTORS["own-attention"](rows) == pytest.approx(slow_own_attention(rows), rel=1e-4)


@pytest.mark.parametrize("num_rows", [1, 2, 5, 70])
@pytest.mark.parametrize("seed", [0, 1])
def test_key_difference_equals_the_slow_loop(num_rows: int, seed: int) -> None:
    rows = span_rows(num_rows, seed=seed)
    expected = slow_key_difference(rows)
    assert SELECTORS["key-difference"](rows) == pytest.approx(expected, abs=1e-5)


def test_long_span_is_scored_by_its_first_and_last_query_too() -> None:
    rows = span_rows(1000, seed=5)
    scores = SELECTORS["own-attention"](rows)
    assert scores[-1] > 0
    first_query_only_sees_itself = SELECTORS["own-attention"](span_rows(1))[0]
    assert first_query_only_sees_itself == pytest.approx(6)


FIVE = [[1.0, 0.0], [4.0, 0.0], [0.0, 3.0], [2.0, 0.0], [5.0, 0.0]]
FIVE_VALUES = [[9.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("selector", "kept"),
    [
        ("recency", [3, 4]),
        ("key-norm", [0, 3]),  # norms 1, 4, 3, 2, 5
        ("key-difference", [0, 2]),  # row 2 is at right angles to the others, which tie
        ("value-weighted", [0, 2]),  # (1 - 4 / sqrt 17) * 9 < 1 - 1 / sqrt 17
    ],
)
def test_worked_example_of_five_rows(selector: str, kept: list[int]) -> None:
    assert select_rows(one_head(FIVE, FIVE_VALUES), selector, 2).tolist() == kept


def test_own_attention_worked_example() -> None:
    """Every query likes row 1 best; row 4 is seen by itself alone."""
    keys = [[0.0, 0.0], [9.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    rows = one_head(keys)
    queries = np.full_like(rows.keys, 1.0)
    rows = SpanRows(
        queries=lambda: queries, keys=rows.keys, values=rows.values, positions=rows.positions,
        random=rows.random,
    )  # fmt: skip
    assert select_rows(rows, "own-attention", 1).tolist() == [1]
