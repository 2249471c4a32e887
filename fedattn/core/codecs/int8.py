"""int8: each row of each head has one scale.

payload = scales of K, scales of V, each [N] float16, then K, V, each [N, D] int8
"""

import numpy as np
import numpy.typing as npt

from fedattn.core.codecs.checks import check_range, require_finite
from fedattn.core.codecs.codec import CodecId
from fedattn.core.types import FloatArray, HeadCounts

_STEPS = 127
_LARGEST_FP16 = 65504.0
_SMALLEST_FP16 = 2.0**-24
HalfArray = npt.NDArray[np.float16]


class Int8Codec:
    """Symmetric, rounded to the nearest of 255 codes of its row and head."""

    name = "int8"
    codec_id = CodecId.INT8
    keys_before_rope = False
    is_fixed_size = True

    def max_payload_size(self, head_dim: int, counts: HeadCounts) -> int:
        return 2 * sum(counts) * (2 + head_dim)

    def error_bound(
        self, keys: FloatArray, values: FloatArray, counts: HeadCounts
    ) -> tuple[FloatArray, FloatArray]:
        """Half a scale: the row's largest magnitude / 254, and the rounding of its scale."""
        return _half_step(keys), _half_step(values)

    def encode(self, keys: FloatArray, values: FloatArray, counts: HeadCounts) -> bytes:
        largest = _LARGEST_FP16 * _STEPS
        check_range(keys, largest, self.name)
        check_range(values, largest, self.name)
        key_scales, value_scales = row_scales(keys, _STEPS), row_scales(values, _STEPS)
        return b"".join(
            (
                key_scales.astype("<f2").tobytes(),
                value_scales.astype("<f2").tobytes(),
                _quantise(keys, key_scales).tobytes(),
                _quantise(values, value_scales).tobytes(),
            )
        )

    def vectors_size(self, num_vectors: int, size: int) -> int:
        return num_vectors * (2 + size)

    def encode_vectors(self, rows: FloatArray) -> bytes:
        check_range(rows, _LARGEST_FP16 * _STEPS, self.name)
        scales = row_scales(rows, _STEPS)
        return scales.astype("<f2").tobytes() + _quantise(rows, scales).tobytes()

    def decode_vectors(self, payload: memoryview, num_vectors: int, size: int) -> FloatArray:
        scales = np.frombuffer(payload, dtype="<f2", count=num_vectors)
        require_finite(scales, self.name)
        codes = np.frombuffer(payload, dtype=np.int8, offset=scales.nbytes)
        decoded: FloatArray = codes.reshape(num_vectors, size) * scales.astype(np.float32)[:, None]
        return decoded

    def decode(
        self, payload: memoryview, head_dim: int, counts: HeadCounts
    ) -> tuple[FloatArray, FloatArray]:
        num_rows = sum(counts)
        scales = np.frombuffer(payload, dtype="<f2", count=2 * num_rows)
        require_finite(scales, self.name)
        codes = np.frombuffer(payload, dtype=np.int8, offset=scales.nbytes)
        wide = scales.astype(np.float32).reshape(2, num_rows, 1)
        decoded = codes.reshape(2, num_rows, head_dim) * wide
        return decoded[0], decoded[1]


def row_scales(rows: FloatArray, num_steps: int) -> HalfArray:
    """Step of each row, [N] float16, rounded up so that no scalar is clipped."""
    magnitudes = np.maximum(rows.max(axis=-1), -rows.min(axis=-1))
    return round_up(magnitudes / np.float32(num_steps))


def round_up(steps: FloatArray) -> HalfArray:
    """The nearest float16 that is not below `steps`, and above 0."""
    rounded = np.maximum(steps, np.float32(_SMALLEST_FP16)).astype(np.float16)
    return np.nextafter(rounded, np.float16(np.inf), out=rounded, where=rounded < steps)


def _quantise(rows: FloatArray, scales: HalfArray) -> npt.NDArray[np.int8]:
    scaled = rows * (np.float32(1) / scales.astype(np.float32))[..., None]
    return np.rint(scaled, out=scaled).astype(np.int8)


def _half_step(rows: FloatArray) -> FloatArray:
    scales = row_scales(rows, _STEPS).astype(np.float32)
    return (scales * np.float32(0.5001))[..., None]  # and the rounding of the arithmetic
