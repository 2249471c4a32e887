"""Rotary position embedding (RoPE), undone and applied again outside the model.

Keys before RoPE vary less from row to row: each channel keeps its mean. Codecs that make use of it
send keys rotated back to position 0; the receiver turns them forward again.
Source: RoFormer, arXiv 2104.09864; keys before RoPE: KVQuant, arXiv 2401.18079.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedattn.core.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rotary:
    """The rotation of one model.

    Attributes:
        inverse_frequencies: [R] float64, radians a position; channel i turns with channel i + R,
            for i < R <= D / 2 (the half-split layout of Llama and Qwen2).
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
        distinct, places = np.unique(positions, return_inverse=True)  # heads share positions
        angles = direction * distinct[:, None] * self.inverse_frequencies
        cosines = np.cos(angles).astype(np.float32)[places]  # [T, R]
        sines = np.sin(angles).astype(np.float32)[places]
        half = len(self.inverse_frequencies)
        first, second = keys[..., :half], keys[..., half : 2 * half]
        rotated = np.empty(keys.shape, dtype=np.float32)
        rotated[..., :half] = first * cosines - second * sines
        rotated[..., half : 2 * half] = second * cosines + first * sines
        rotated[..., 2 * half :] = keys[..., 2 * half :]
        return rotated
