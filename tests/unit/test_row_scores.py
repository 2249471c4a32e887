"""Scores of rows are linear in keys and values of all heads, and a fit finds the map again."""

import numpy as np
import pytest

from fedattn.core.row_scores import RowScorer, row_features
from fedattn.core.types import KvShape
from fedattn.research.calibrate.ridge import ScorerFit
from fedattn.research.calibrate.shares import HeadShares
from tests.harness.learned import random_scorer

SHAPE = KvShape(num_layers=3, num_kv_heads=2, head_dim=4)


def rows(num_rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    keys, values = random.normal(size=(2, 2, num_rows, 4)).astype(np.float32)
    return keys, values


def test_a_score_is_a_product_with_keys_of_all_heads_then_values() -> None:
    scorer, (keys, values) = random_scorer(SHAPE), rows(5)
    scores = scorer.scores(1, keys, values)
    for head in range(2):
        for row in range(5):
            features = [*keys[0, row], *keys[1, row], *values[0, row], *values[1, row]]
            expected = scorer.bias[1, head] + np.dot(scorer.weights[1, head], features)
            assert scores[head, row] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(bad: float) -> None:
    weights = np.full((3, 2, 16), bad, dtype=np.float32)
    with pytest.raises(ValueError, match="finite"):
        RowScorer(weights=weights, bias=np.zeros((3, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="needs weights"):
        RowScorer(weights=weights[..., :15], bias=np.zeros((3, 2), dtype=np.float32))


def test_a_fit_ranks_rows_as_the_map_their_scores_come_from() -> None:
    truth, fit = random_scorer(SHAPE), ScorerFit(SHAPE)
    for seed in range(1, 5):
        keys, values = rows(200, seed)
        keys += np.float32(50)  # models with biases have keys far from zero
        wanted = np.exp(truth.scores(2, keys, values) / 10 - 100)
        fit.add(2, row_features(keys, values), wanted.clip(1e-6, 1))
        fit.add(1, row_features(keys, values), np.exp(truth.scores(1, keys - 50, values) / 9 - 3))
    found = fit.solve()
    keys, values = rows(100, 9)
    one = found.scores(1, keys + np.float32(50), values)
    other = truth.scores(1, keys, values)
    for head in range(2):
        assert np.corrcoef(one[head], other[head])[0, 1] > 0.99
    assert not found.weights[0].any()


def test_a_head_that_is_looked_at_more_keeps_more() -> None:
    scores = np.zeros((3, 2, 10), dtype=np.float32)
    scores[1] = [[0.9] * 10, [0.1] * 10]
    scores[2] = [[0.5] * 10, [0.8] * 5 + [0.2] * 5]
    scores[0] = 1.0  # of the block that is never synchronised
    shares = HeadShares(SHAPE, first=1)
    shares.add(scores)
    assert shares.at(0.5) == bytes((0, 0, 255, 0, 128, 128))
    shares.add(scores[:, ::-1])
    assert sum(shares.at(0.5)) == pytest.approx(0.5 * 4 * 255, abs=2)
