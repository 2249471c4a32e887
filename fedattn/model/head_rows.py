"""Received rows of one block where each key/value head has a set of its own.

They lie head after head, as they travel, and are never filled up to a common length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedattn.core.types import FloatArray, HeadCounts, HeadRows, IntArray, KvRows, head_slices


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RaggedRows:
    """`HeadRows` where the model computes.

    Attributes:
        keys: [N, D] after RoPE.
        values: [N, D].
        positions: [N] int64 global positions, in token order within a head.
        counts: rows of each head, Hkv numbers; some may be 0. Their sum is N.
        biases: [N] added to the scores of a row.
    """

    keys: torch.Tensor
    values: torch.Tensor
    positions: torch.Tensor
    counts: HeadCounts
    biases: torch.Tensor

    @classmethod
    def join(
        cls, parts: Sequence[HeadRows], device: torch.device, dtype: torch.dtype
    ) -> "RaggedRows":
        """Rows of all senders; of each head the first sender's come first.

        Example, heads a and b, two senders: a1 a1 b1 | a2 b2 b2 become a1 a1 a2 b1 b2 b2.

        Args:
            parts: of each sender, in token order; at least one.
            device: where the model computes.
            dtype: of keys and values there.
        """
        keys, values, positions, biases = (
            torch.from_numpy(_by_head(parts, arrays)).to(device)
            for arrays in (
                [part.keys for part in parts],
                [part.values for part in parts],
                [part.positions for part in parts],
                [_biases(part) for part in parts],
            )
        )
        counts = tuple(map(sum, zip(*(part.counts for part in parts), strict=True)))
        return cls(
            keys=keys.to(dtype),
            values=values.to(dtype),
            positions=positions,
            counts=counts,
            biases=biases.to(dtype),
        )

    def tensors(self) -> list[torch.Tensor]:
        """All that it holds."""
        return [self.keys, self.values, self.positions, self.biases]

    def select(self, chosen: torch.Tensor) -> "RaggedRows | None":
        """The rows of a mask [N] bool: the same object if it is all of them, None if none."""
        counts = tuple(int(chosen[here].sum()) for here in head_slices(self.counts))
        if counts == self.counts:
            return self
        if not any(counts):
            return None
        return RaggedRows(
            keys=self.keys[chosen],
            values=self.values[chosen],
            positions=self.positions[chosen],
            counts=counts,
            biases=self.biases[chosen],
        )


def _biases(rows: HeadRows) -> FloatArray:
    return np.zeros(rows.num_rows, np.float32) if rows.biases is None else rows.biases


def as_dense(rows: HeadRows) -> KvRows | None:
    """The inverse of `HeadRows.of`, as views; None if heads differ, or have biases."""
    heads, num_rows = len(rows.counts), rows.counts[0]
    if len(set(rows.counts)) > 1 or rows.biases is not None:
        return None
    positions = rows.positions.reshape(heads, num_rows)
    if (positions != positions[0]).any():
        return None
    keys, values = (array.reshape(heads, num_rows, -1) for array in (rows.keys, rows.values))
    return KvRows(keys=keys, values=values, positions=positions[0])


def _by_head(
    parts: Sequence[HeadRows], arrays: Sequence[FloatArray | IntArray]
) -> FloatArray | IntArray:
    """One array of each part, joined head by head."""
    slices = zip(*(part.heads for part in parts), strict=True)
    joined: FloatArray | IntArray = np.concatenate(
        [array[here] for of_head in slices for array, here in zip(arrays, of_head, strict=True)]
    )
    return joined
