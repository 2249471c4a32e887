"""Scores that say which rows will be asked for, from keys and values alone.

Whoever gives a context does not know the question. KVzip (arXiv 2505.23416) lets a model repeat
the context behind itself, and scores a row by the most attention it gets then. That takes two more
prefills. The logarithm of this score is nearly linear in the keys and values of all heads of a
block (KVzap, arXiv 2601.07891, predicts it from hidden states), so calibration fits one linear map
a block, and a row costs a dot product.
"""

from dataclasses import dataclass

import numpy as np

from fedattn.core.types import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowScorer:
    """The linear maps of one model.

    Attributes:
        weights: [L, Hkv, 2 Hkv D] float32; keys before RoPE of all heads first, then values.
        bias: [L, Hkv] float32.
    """

    weights: FloatArray
    bias: FloatArray

    def __post_init__(self) -> None:
        layers, heads, width = self.weights.shape
        if self.bias.shape != (layers, heads) or width % (2 * heads):
            raise ValueError(
                f"RowScorer needs weights [L, Hkv, 2 Hkv D] and a bias [L, Hkv], got "
                f"{self.weights.shape} and {self.bias.shape}"
            )
        if not (np.isfinite(self.weights).all() and np.isfinite(self.bias).all()):
            raise ValueError("RowScorer needs finite weights")

    def scores(self, layer: int, keys: FloatArray, values: FloatArray) -> FloatArray:
        """Scores of each row for each head; larger is kept first.

        Args:
            layer: zero-based.
            keys: [Hkv, T, D] float32 before RoPE.
            values: [Hkv, T, D] float32.

        Returns:
            [Hkv, T] float32.
        """
        scores: FloatArray = self.weights[layer] @ row_features(keys, values).T
        scores += self.bias[layer][:, None]
        return scores


def row_features(keys: FloatArray, values: FloatArray) -> FloatArray:
    """What a score is linear in, [T, 2 Hkv D], of keys before RoPE and values [Hkv, T, D]."""
    num_rows = keys.shape[1]
    both = [rows.transpose(1, 0, 2).reshape(num_rows, -1) for rows in (keys, values)]
    features: FloatArray = np.concatenate(both, axis=1)
    return features
