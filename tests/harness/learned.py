"""The selector `learned` for tiny models: shares of heads, and scores, drawn at random."""

from dataclasses import replace

import numpy as np

from fedattn.core.compression import FULL_SHARE, Compression
from fedattn.core.row_scores import RowScorer
from fedattn.core.selection import LEARNED
from fedattn.core.types import KvShape


def random_scorer(shape: KvShape, seed: int = 0) -> RowScorer:
    """Scores that tell rows apart, and heads from each other."""
    random = np.random.default_rng(seed)
    width = shape.values_per_row
    size = (shape.num_layers, shape.num_kv_heads, width)
    return RowScorer(
        weights=random.normal(size=size).astype(np.float32),
        bias=random.normal(size=size[:2]).astype(np.float32),
    )


def ragged(compression: Compression, shape: KvShape, seed: int = 0) -> Compression:
    """The same with other shares for every head: at the first two blocks one has no row at all,
    and at the last one has all.
    """
    random = np.random.default_rng(seed)
    shares = random.integers(1, FULL_SHARE, size=(shape.num_layers, shape.num_kv_heads))
    shares[0, 0] = shares[1, -1] = 0
    shares[-1, 0] = FULL_SHARE
    return replace(
        compression,
        selector=LEARNED,
        head_shares=bytes(shares.ravel().tolist()),
        keep_ratio=float(shares.mean()) / FULL_SHARE,
    )
