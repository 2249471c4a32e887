"""Scores of rows: a linear map of keys and values, one for each head of each block."""

from typing import Any

import numpy as np
import pytest

from fedattn.core.row_scores import RowScorer, row_features

LAYERS, HEADS, SIZE = 3, 2, 4


def scorer(**changes: Any) -> RowScorer:
    random = np.random.default_rng(0)
    arrays = {
        "weights": random.normal(size=(LAYERS, HEADS, 2 * HEADS * SIZE)).astype(np.float32),
        "bias": random.normal(size=(LAYERS, HEADS)).astype(np.float32),
    }
    return RowScorer(**{**arrays, **changes})


def test_scores_equal_the_slow_loop() -> None:
    scores, random = scorer(), np.random.default_rng(1)
    keys, values = random.normal(size=(2, HEADS, 5, SIZE)).astype(np.float32)
    for layer in range(LAYERS):
        got = scores.scores(layer, keys, values)
        assert got.shape == (HEADS, 5)
        for head in range(HEADS):
            weights = scores.weights[layer, head].reshape(2, HEADS, SIZE)
            for row in range(5):
                slow = float(scores.bias[layer, head])
                for other in range(HEADS):
                    slow += float(weights[0, other] @ keys[other, row])
                    slow += float(weights[1, other] @ values[other, row])
                assert got[head, row] == pytest.approx(slow, abs=1e-5)


def test_features_are_keys_of_all_heads_then_values() -> None:
    """Two heads of size 1, three rows."""
    keys = np.array([[[1], [2], [3]], [[4], [5], [6]]], dtype=np.float32)
    features = row_features(keys, keys * 10)
    assert features.tolist() == [[1, 4, 10, 40], [2, 5, 20, 50], [3, 6, 30, 60]]


def test_scores_leave_the_maps_as_they_are() -> None:
    scores = scorer()
    rows = np.ones((HEADS, 2, SIZE), dtype=np.float32)
    assert np.array_equal(scores.scores(1, rows, rows), scores.scores(1, rows, rows))


@pytest.mark.parametrize(
    "changes",
    [
        {"bias": np.zeros((LAYERS, HEADS + 1), dtype=np.float32)},
        {"bias": np.zeros((LAYERS + 1, HEADS), dtype=np.float32)},
        {"weights": np.zeros((LAYERS, HEADS, 2 * HEADS * SIZE + 1), dtype=np.float32)},
    ],
)
def test_maps_of_another_shape_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"needs weights \[L, Hkv, 2 Hkv D\] and a bias"):
        scorer(**changes)


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["weights", "bias"])
def test_maps_that_are_not_finite_are_refused(name: str, number: float) -> None:
    broken = getattr(scorer(), name).copy()
    broken.flat[3] = number
    with pytest.raises(ValueError, match="finite weights"):
        scorer(**{name: broken})
