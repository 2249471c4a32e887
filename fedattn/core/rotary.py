"""Rotary position embedding (RoPE), undone and applied again outside the model.

Keys before RoPE vary less from row to row: each channel keeps its mean. Codecs that make use of it
send keys rotated back to position 0; the receiver turns them forward again.
Source: RoFormer, arXiv 2104.09864; keys before RoPE: KVQuant, arXiv 2401.18079.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fedattn.core.types import FloatArray, IntArray

_KEPT_TABLES, _MAX_KEPT_POSITIONS = 16, 1024
"""Cosines and sines of so many ranges of positions are kept, for the next block: 8 MiB at most for
R = 64. Longer ranges are computed each time; there they are a small part of the work.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rotary:
    """The rotation of one block.

    Attributes:
        inverse_frequencies: [R] float64, radians a position; channel i turns with channel i + R,
            for i < R <= D / 2 (the half-split layout of Llama). No channel
            turns where R is 0, and those from 2 R on never do.
    """

    inverse_frequencies: npt.NDArray[np.float64]

    def apply(self, keys: FloatArray, positions: IntArray) -> FloatArray:
        """Keys after RoPE.

        Args:
            keys: [Hkv, T, D] float32 before RoPE; or [N, D] of heads with rows of their own.
            positions: [T] int64 global positions; or [N].
        """
        return self._turn(keys, positions, direction=1)

    def undo(self, keys: FloatArray, positions: IntArray) -> FloatArray:
        """Keys before RoPE, float32; the inverse of `apply`."""
        return self._turn(keys, positions, direction=-1)

    def _turn(self, keys: FloatArray, positions: IntArray, direction: int) -> FloatArray:
        cosines, sines = self._cosines_and_sines(positions)
        sines *= direction
        half = len(self.inverse_frequencies)
        first, second = keys[..., :half], keys[..., half : 2 * half]
        rotated = np.empty(keys.shape, dtype=np.float32)
        rotated[..., :half] = first * cosines - second * sines
        rotated[..., half : 2 * half] = second * cosines + first * sines
        rotated[..., 2 * half :] = keys[..., 2 * half :]
        return rotated

    def _cosines_and_sines(self, positions: IntArray) -> tuple[FloatArray, FloatArray]:
        """Each [T, R] float32, of which the caller may do as it likes."""
        start, stop = int(positions.min(initial=1 << 62)), int(positions.max(initial=-1)) + 1
        if start < stop <= start + _MAX_KEPT_POSITIONS:
            cosines, sines = _range_table(self.inverse_frequencies.tobytes(), start, stop)
            places = positions - start
        else:
            distinct, places = np.unique(positions, return_inverse=True)  # heads share positions
            cosines, sines = _table(distinct, self.inverse_frequencies)
        return cosines[places], sines[places]


@lru_cache(maxsize=_KEPT_TABLES)
def _range_table(
    inverse_frequencies: bytes, start: int, stop: int
) -> tuple[FloatArray, FloatArray]:
    return _table(np.arange(start, stop), np.frombuffer(inverse_frequencies))


def _table(
    positions: IntArray, inverse_frequencies: npt.NDArray[np.float64]
) -> tuple[FloatArray, FloatArray]:
    """Cosines and sines of each position, [T, R] float32."""
    angles = positions[:, None] * inverse_frequencies
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
