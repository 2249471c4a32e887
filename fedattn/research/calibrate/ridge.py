"""The linear map from keys and values to scores, by ridge regression."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedattn.core.row_scores import RowScorer
from fedattn.core.types import FloatArray, KvShape

_LEAST_SCORE = 1e-6
"""Attention below this counts as this: its logarithm would weigh more than any other."""
_LEAST_DEVIATION = 1e-4
_PENALTY = 0.1
"""Of standardised features, times the number of rows; hardly moves what the fit ranks highest."""

_Doubles = npt.NDArray[np.float64]


class ScorerFit:
    """Sums over the rows of texts; no text's features stay.

    Args:
        shape: sizes of the model's KV rows.
    """

    def __init__(self, shape: KvShape) -> None:
        self._blocks = [_Block.empty(shape) for _ in range(shape.num_layers)]

    def add(self, layer: int, features: FloatArray, scores: FloatArray) -> None:
        """Take the rows of one text at one layer into account.

        Args:
            layer: zero-based.
            features: [T, 2 Hkv D], as `row_features`.
            scores: [Hkv, T] replay scores.
        """
        targets = np.log(np.maximum(scores, _LEAST_SCORE)).T
        self._blocks[layer].add(features.astype(np.float64), targets.astype(np.float64))

    def solve(self) -> RowScorer:
        """The maps that fit best, as raw weights and a bias."""
        solved = [block.solve() for block in self._blocks]
        return RowScorer(
            weights=np.stack([weights.T for weights, _ in solved]).astype(np.float32),
            bias=np.stack([bias for _, bias in solved]).astype(np.float32),
        )


@dataclass(slots=True, eq=False)
class _Block:
    """Sums of one block over its rows: x, x x', y, x y'."""

    num_rows: int
    features: _Doubles  # [F]
    products: _Doubles  # [F, F]
    targets: _Doubles  # [Hkv]
    crossed: _Doubles  # [F, Hkv]

    @classmethod
    def empty(cls, shape: KvShape) -> "_Block":
        width, heads = shape.values_per_row, shape.num_kv_heads
        zeros = [np.zeros(size) for size in (width, (width, width), heads, (width, heads))]
        return cls(0, *zeros)

    def add(self, features: _Doubles, targets: _Doubles) -> None:
        self.num_rows += len(features)
        self.features += features.sum(axis=0)
        self.products += features.T @ features
        self.targets += targets.sum(axis=0)
        self.crossed += features.T @ targets

    def solve(self) -> tuple[_Doubles, _Doubles]:
        """Weights [F, Hkv] and bias [Hkv] of features as they are; zeros of a block without any."""
        if self.num_rows == 0:
            return self.crossed, self.targets
        means, targets = self.features / self.num_rows, self.targets / self.num_rows
        covariance = self.products / self.num_rows - np.outer(means, means)
        deviations = np.sqrt(np.maximum(np.diag(covariance), 0)) + _LEAST_DEVIATION
        correlation = covariance / np.outer(deviations, deviations)
        wanted = (self.crossed / self.num_rows - np.outer(means, targets)) / deviations[:, None]
        penalty = _PENALTY * np.eye(len(means))
        weights = np.linalg.solve(correlation + penalty, wanted) / deviations[:, None]
        return weights, targets - means @ weights
