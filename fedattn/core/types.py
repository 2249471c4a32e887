"""Value types of keys and values.

Shape letters used in every docstring of the project:

    B    batch, always 1 here          T   own tokens of a participant
    Hq   query heads                   S   visible tokens (keys) at a layer
    Hkv  key/value heads               D   head size
    L    Transformer blocks            P   tokens of the public prefix
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int64]
Queries: TypeAlias = Callable[[], FloatArray]
"""Fetches [Hq, T, D] float32 after RoPE from where the model computes; few ever ask for them."""


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
    """KV rows of one layer, in token order.

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

        if (np.diff(self.positions) <= 0).any():
            raise ValueError("KvRows needs strictly increasing positions")

    @property
    def num_rows(self) -> int:
        return int(self.keys.shape[1])
