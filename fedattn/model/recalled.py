"""What others made of queries that they were asked, said again to queries like those.

For drafts only: what attention makes of rows that are elsewhere is known here for the queries that
were sent. To a new query of a head the answer to the nearest one is taken. Refused drafts are as
good for that as tokens of the answer.
"""

from collections.abc import Collection

import numpy as np

from fedattn.core.asked import PartialAttention
from fedattn.core.types import FloatArray

_MOST_TOKENS = 64
"""The newest are kept; memory is twice their queries, [Hq, 64, D] float32 a block."""

_NOTHING = np.empty(0, np.float32)


class Recollection:
    """Queries of one block's newest tokens, with what all others together made of each."""

    def __init__(self) -> None:
        self._queries = self._outputs = self._lses = _NOTHING

    def add(self, queries: FloatArray, parts: Collection[PartialAttention]) -> None:
        """Keep what others made of T tokens.

        Args:
            queries: [Hq, T, D] float32, as they were sent.
            parts: one of each that answered, at least one, for the same tokens.
        """
        last = slice(-_MOST_TOKENS, None)
        lses = np.stack([part.lse[:, last] for part in parts])
        lse = np.logaddexp.reduce(lses)
        weights = np.exp(lses - lse)[..., None]
        output = sum(
            part.output[:, last] * weight for part, weight in zip(parts, weights, strict=True)
        )
        self._queries = _extended(self._queries, queries[:, last])
        self._outputs = _extended(self._outputs, output)
        self._lses = _extended(self._lses, lse)

    def like(self, queries: FloatArray) -> PartialAttention:
        """What others made of the nearest queries, once there are any.

        Args:
            queries: [Hq, T, D] float32 after RoPE, scaled.
        """
        known = self._queries
        distances = (known**2).sum(axis=-1)[:, None] - 2 * queries @ known.transpose(0, 2, 1)
        nearest = distances.argmin(axis=-1)  # [Hq, T]; |q|^2 is the same to all
        heads = np.arange(len(known))[:, None]
        return PartialAttention(
            output=self._outputs[heads, nearest], lse=self._lses[heads, nearest]
        )


def _extended(known: FloatArray, new: FloatArray) -> FloatArray:
    """[Hq, N, ...] with [Hq, T, ...] behind it, the newest 64; always a copy."""
    joined = np.concatenate([known, new], axis=1) if known.size else new
    return np.array(joined[:, -_MOST_TOKENS:], dtype=np.float32)
