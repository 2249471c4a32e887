"""How many of its rows each head keeps, from one ranking of all of them."""

import numpy as np
import numpy.typing as npt

from fedattn.core.compression import FULL_SHARE
from fedattn.core.types import FloatArray, KvShape

KEEP_RATIOS = (0.7, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05)


class HeadShares:
    """Shares of the heads in rankings of whole texts, mean over the texts.

    Args:
        shape: sizes of the model's KV rows.
        first: first block whose rows travel.
    """

    def __init__(self, shape: KvShape, first: int) -> None:
        self._first = first
        heads = (shape.num_layers, shape.num_kv_heads)
        self._sums: dict[float, npt.NDArray[np.float64]] = {
            ratio: np.zeros(heads) for ratio in KEEP_RATIOS
        }
        self._num_texts = 0

    def add(self, scores: FloatArray) -> None:
        """Rank the rows of one text, of all blocks and heads together.

        Args:
            scores: [L, Hkv, T].
        """
        synced = scores[self._first :]
        places = np.empty(synced.size, dtype=np.int64)
        places[np.argsort(-synced, axis=None, kind="stable")] = np.arange(synced.size)
        for ratio, sums in self._sums.items():
            is_kept = places.reshape(synced.shape) < max(1, int(ratio * synced.size))
            sums[self._first :] += is_kept.mean(axis=-1)
        self._num_texts += 1

    def at(self, keep_ratio: float) -> bytes:
        """A byte each for the L Hkv heads, as `Compression.head_shares`."""
        shares = self._sums[keep_ratio] / self._num_texts
        return bytes(np.rint(shares * FULL_SHARE).astype(int).flatten().tolist())
