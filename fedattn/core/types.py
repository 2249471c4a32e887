"""Value types of keys and values.

Shape letters used in every docstring of the project:

    B    batch, always 1 here          T   own tokens of a participant
    Hq   query heads                   S   visible tokens (keys) at a layer
    Hkv  key/value heads               D   head size
    L    Transformer blocks            P   tokens of the public prefix
    N    rows of all heads together, where each head has a set of its own
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int64]
Queries: TypeAlias = Callable[[], FloatArray]
"""Fetches [Hq, T, D] float32 from where the model computes, after RoPE and scaled for scores."""
HeadCounts: TypeAlias = tuple[int, ...]
"""Rows of each key/value head at one layer, Hkv numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KvShape:
    """What two models must share for their KV rows to be exchangeable."""

    num_layers: int
    num_kv_heads: int
    head_dim: int

    def __post_init__(self) -> None:
        if min(self.num_layers, self.num_kv_heads, self.head_dim) < 1:
            raise ValueError(f"KvShape needs positive sizes, got {self}")

    @property
    def values_per_row(self) -> int:
        """Scalars in K and V together, for one token at one layer."""
        return 2 * self.num_kv_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KvRows:
    """KV rows of one layer as a model computes them, in token order: every head has every token.

    Attributes:
        keys: [Hkv, T, D] float32, after RoPE at the global positions.
        values: [Hkv, T, D] float32.
        positions: [T] int64, strictly increasing global token positions.
    """

    keys: FloatArray
    values: FloatArray
    positions: IntArray

    def __post_init__(self) -> None:
        if self.keys.ndim != 3 or self.keys.shape != self.values.shape:
            raise ValueError(
                f"KvRows needs keys and values of one shape [Hkv, T, D], "
                f"got {self.keys.shape} and {self.values.shape}"
            )
        if self.positions.shape != (self.keys.shape[1],):
            raise ValueError(
                f"KvRows needs one position a row, got {self.positions.shape} "
                f"positions for {self.keys.shape[1]} rows"
            )

        if (self.positions[1:] <= self.positions[:-1]).any():
            raise ValueError("KvRows needs strictly increasing positions")

    @property
    def num_rows(self) -> int:
        return int(self.keys.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadRows:
    """KV rows of one layer as they travel: each head has its own set of rows, head after head.

    Example, 2 heads that keep the tokens 4 6 and 5:

        positions 4 6 | 5        counts (2, 1)        keys of head 0, head 0, head 1

    Attributes:
        keys: [N, D] float32, after RoPE at the global positions.
        values: [N, D] float32.
        positions: [N] int64 global token positions, strictly increasing within a head.
        counts: rows of each head; their sum is N.
        biases: [N] float32, added to the scores of a row (`fedattn.core.refit`); None for none.
    """

    keys: FloatArray
    values: FloatArray
    positions: IntArray
    counts: HeadCounts
    biases: FloatArray | None = None

    def __post_init__(self) -> None:
        num_rows = sum(self.counts)
        if self.keys.ndim != 2 or self.keys.shape != self.values.shape:
            raise ValueError(
                f"HeadRows needs keys and values of one shape [N, D], "
                f"got {self.keys.shape} and {self.values.shape}"
            )
        if self.biases is not None and self.biases.shape != (num_rows,):
            raise ValueError(f"HeadRows needs a bias for each row, got {self.biases.shape}")
        if len(self.keys) != num_rows or self.positions.shape != (num_rows,):
            raise ValueError(
                f"HeadRows of {self.counts} rows needs {num_rows} keys and positions, "
                f"got {len(self.keys)} and {self.positions.shape}"
            )
        falls = np.flatnonzero(self.positions[1:] <= self.positions[:-1]) + 1
        if not set(falls.tolist()) <= {head.start for head in self.heads}:
            raise ValueError("HeadRows needs strictly increasing positions within each head")

    @classmethod
    def of(cls, rows: KvRows) -> "HeadRows":
        """All rows, for every head the same tokens."""
        heads, num_rows, size = rows.keys.shape
        return cls(
            keys=rows.keys.reshape(-1, size),
            values=rows.values.reshape(-1, size),
            positions=np.tile(rows.positions, heads),
            counts=(num_rows,) * heads,
        )

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.keys)

    @property
    def rows_a_head(self) -> int:
        """Rows of one head, in the mean, rounded up."""
        return -(-self.num_rows // len(self.counts))

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""
        biases = 0 if self.biases is None else self.biases.nbytes
        return self.keys.nbytes + self.values.nbytes + self.positions.nbytes + biases

    @property
    def heads(self) -> tuple[slice, ...]:
        """Where the rows of each head are."""
        return head_slices(self.counts)


def head_slices(counts: HeadCounts) -> tuple[slice, ...]:
    """Where the rows of each head are among all N."""
    return tuple(slice(*ends) for ends in pairwise(accumulate(counts, initial=0)))
