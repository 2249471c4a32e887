"""Row selection: what the scores mean, and that exactly the promised rows are kept."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.compression import num_kept
from fedattn.core.errors import PolicyRefusedError
from fedattn.core.selection import SELECTORS, select_rows, token_scores
from fedattn.core.types import FloatArray, HeadCounts, KvRows

each_selector = pytest.mark.parametrize("selector", SELECTORS)


def span_rows(num_rows: int, *, seed: int = 0, scale: float = 1.0, start: int = 3) -> KvRows:
    """Random rows of two key/value heads."""
    both = np.random.default_rng(seed).normal(size=(2, 2, num_rows, 4)) * scale
    keys, values = both.astype(np.float32)
    return KvRows(keys=keys, values=values, positions=np.arange(start, start + num_rows))


def one_head(keys: list[list[float]], values: list[list[float]]) -> KvRows:
    return KvRows(
        keys=np.array([keys], dtype=np.float32),
        values=np.array([values], dtype=np.float32),
        positions=np.arange(len(keys)),
    )


def scores_of(rows: KvRows, selector: str, seed: int = 0) -> FloatArray:
    return token_scores(rows, selector, np.random.default_rng(seed))


def places(
    scores: list[list[float]],
    counts: HeadCounts,
    *,
    keep_ends: int = 0,
    withheld: tuple[int, ...] = (),
) -> list[list[int]]:
    """Which rows are kept of each head, by their scores."""
    num_rows = len(scores[0])
    keys = np.zeros((len(scores), num_rows, 2), dtype=np.float32)
    keys[..., 0] = np.arange(len(scores))[:, None]
    keys[..., 1] = np.arange(num_rows)
    kept = select_rows(
        KvRows(keys=keys, values=-keys, positions=np.arange(num_rows) + 50),
        np.array(scores, dtype=np.float32),
        counts,
        keep_ends=keep_ends,
        withheld=np.array(withheld, dtype=np.int64) if withheld else None,
    )
    assert kept.counts == counts
    assert np.array_equal(kept.keys, -kept.values)
    assert np.array_equal(kept.keys[:, 1] + 50, kept.positions)
    assert kept.keys[:, 0].tolist() == np.repeat(np.arange(len(scores)), counts).tolist()
    return [(kept.positions[head] - 50).tolist() for head in kept.heads]


def dot(left: FloatArray, right: FloatArray) -> float:
    return math.fsum(float(a) * float(b) for a, b in zip(left, right, strict=True))


def slow_value_weighted(rows: KvRows) -> list[float]:
    """One less the mean cosine of a row's keys and their heads' mean directions, times the mean
    norm of its values.
    """
    heads, num_rows, head_dim = rows.keys.shape
    likeness, size = [0.0] * num_rows, [0.0] * num_rows
    for keys, values in zip(rows.keys, rows.values, strict=True):
        units = [key / math.sqrt(dot(key, key)) for key in keys]
        mean = np.array([math.fsum(unit[d] for unit in units) / num_rows for d in range(head_dim)])
        length = math.sqrt(dot(mean, mean))
        for row, unit in enumerate(units):
            likeness[row] += dot(unit, mean) / length / heads
            size[row] += math.sqrt(dot(values[row], values[row])) / heads
    return [(1 - alike) * norm for alike, norm in zip(likeness, size, strict=True)]


@each_selector
@given(num_rows=st.integers(1, 200), seed=st.integers(0, 99), scale=st.sampled_from([0, 1e-30, 9]))
def test_scores_are_finite_one_a_token_and_always_the_same(
    selector: str, num_rows: int, seed: int, scale: float
) -> None:
    rows = span_rows(num_rows, seed=seed, scale=scale)
    scores = scores_of(rows, selector, seed)
    assert scores.shape == (2, num_rows)
    assert np.array_equal(scores[0], scores[1])
    assert np.isfinite(scores).all()
    assert np.array_equal(scores, scores_of(rows, selector, seed))


@given(num_rows=st.integers(1, 40), seed=st.integers(0, 99), data=st.data())
def test_exactly_the_wanted_number_of_rows_of_each_head_is_kept_in_order(
    num_rows: int, seed: int, data: st.DataObject
) -> None:
    counts = tuple(data.draw(st.lists(st.integers(0, num_rows), min_size=2, max_size=2)))
    keep_ends = data.draw(st.integers(0, 45))
    rows = span_rows(num_rows, seed=seed)
    scores = np.random.default_rng(seed).normal(size=(2, num_rows)).astype(np.float32)
    kept = select_rows(rows, scores, counts, keep_ends=keep_ends)
    assert kept.positions.dtype == np.int64
    assert kept.counts == counts
    ends = {row for row in range(num_rows) if row < keep_ends or row >= num_rows - keep_ends}
    for head, own in enumerate(kept.heads):
        at = kept.positions[own] - 3
        assert np.array_equal(kept.keys[own], rows.keys[head, at])
        assert np.array_equal(kept.values[own], rows.values[head, at])
        assert ends <= set(at.tolist()) or set(at.tolist()) <= ends


def test_each_head_keeps_its_own_best_rows() -> None:
    scores: list[list[float]] = [[5, 1, 4, 2], [1, 2, 3, 4], [1, 9, 1, 1]]
    assert places(scores, (2, 3, 0)) == [[0, 2], [1, 2, 3], []]
    assert places(scores, (0, 0, 4)) == [[], [], [0, 1, 2, 3]]


def test_where_not_all_ends_fit_the_first_rows_are_kept() -> None:
    recent = [list(map(float, range(9)))]
    assert places(recent, (3,), keep_ends=2) == [[0, 1, 7]]
    assert places(recent, (5,), keep_ends=2) == [[0, 1, 6, 7, 8]]


def test_of_rows_alike_the_earlier_is_kept() -> None:
    assert places([[1.0] * 5], (2,)) == [[0, 1]]


@pytest.mark.parametrize("worst", [-np.inf, np.nan, -3e38])
def test_withheld_rows_never_go_whatever_the_others_score(worst: float) -> None:
    scores = [[9.0, worst, worst, 1.0, worst], [worst] * 5]
    assert places(scores, (3, 3), withheld=(0, 3)) == [[1, 2, 4]] * 2
    assert places(scores, (3, 1), keep_ends=2, withheld=(0, 3)) == [[1, 2, 4], [1]]
    with pytest.raises(PolicyRefusedError, match="4 rows are to travel, its owner lets 3"):
        places(scores, (0, 4), withheld=(0, 3))


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


@pytest.mark.parametrize("num_rows", [1, 2, 5, 70])
@pytest.mark.parametrize("seed", [0, 1])
def test_value_weighted_equals_the_slow_loop(num_rows: int, seed: int) -> None:
    rows = span_rows(num_rows, seed=seed)
    scores = scores_of(rows, "value-weighted")[0]
    assert scores == pytest.approx(slow_value_weighted(rows), abs=1e-5)


FIVE = [[1.0, 0.0], [4.0, 0.0], [0.0, 3.0], [2.0, 0.0], [5.0, 0.0]]
FIVE_VALUES = [[9.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("selector", "kept"),
    [
        ("recency", [3, 4]),
        ("value-weighted", [0, 2]),  # (1 - 4 / sqrt 17) * 9 < 1 - 1 / sqrt 17
    ],
)
def test_worked_example_of_five_rows(selector: str, kept: list[int]) -> None:
    rows = one_head(FIVE, FIVE_VALUES)
    assert select_rows(rows, scores_of(rows, selector), (2,)).positions.tolist() == kept
