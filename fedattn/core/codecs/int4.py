"""int4 in the KIVI layout: keys per channel in groups of rows, values per row.

Keys differ mostly by channel, values by row (KIVI, arXiv 2402.02750); keys travel before RoPE,
which keeps a channel's range narrow (KVQuant, arXiv 2401.18079). A group has a zero point and a
scale:

    decoded = zero_point + scale * code, code 0 to 15

    payload = zero points and scales of K, each [Hkv, G, D] float16, G groups of 32 rows, the
              last shorter
              zero points and scales of V, each [Hkv, T] float16
              codes of K, then V, each [Hkv, T, D], two in a byte, low half first
"""

import numpy as np
import numpy.typing as npt

from fedattn.core.codecs.checks import check_range, require_finite
from fedattn.core.codecs.codec import CodecId
from fedattn.core.codecs.int8 import HalfArray, round_up
from fedattn.core.types import FloatArray, KvShape

GROUP_ROWS = 32
_TOP_CODE = 15
_LARGEST = 60000.0
ByteArray = npt.NDArray[np.uint8]


class Int4Codec:
    """Asymmetric, 16 codes a group."""

    name = "int4"
    codec_id = CodecId.INT4
    keys_before_rope = True
    is_fixed_size = True

    def max_payload_size(self, shape: KvShape, num_rows: int) -> int:
        num_codes = shape.num_kv_heads * num_rows * shape.head_dim
        key_groups = shape.num_kv_heads * num_groups(num_rows) * shape.head_dim
        value_groups = shape.num_kv_heads * num_rows
        return 2 * ((num_codes + 1) // 2) + 4 * (key_groups + value_groups)

    def error_bound(self, keys: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Half a scale of the group: its range / 30, and the rounding of zero_point and scale."""
        key_bounds = _bound(*_key_groups(keys))
        by_row = np.repeat(key_bounds, GROUP_ROWS, axis=1)[:, : keys.shape[1]]
        return by_row, _bound(*_group(values, axis=-1))[..., None]

    def encode(self, keys: FloatArray, values: FloatArray) -> bytes:
        check_range(keys, _LARGEST, self.name)
        check_range(values, _LARGEST, self.name)
        key_zero_points, key_scales = _key_groups(keys)
        value_zero_points, value_scales = _group(values, axis=-1)
        key_codes = np.empty(keys.shape, dtype=np.uint8)
        for group, rows in enumerate(_row_slices(keys.shape[1])):
            zero_point, scale = key_zero_points[:, group, None], key_scales[:, group, None]
            key_codes[:, rows] = _codes(keys[:, rows], zero_point, scale)
        value_codes = _codes(values, value_zero_points[..., None], value_scales[..., None])
        numbers = (key_zero_points, key_scales, value_zero_points, value_scales)
        return b"".join(
            (
                *(number.astype("<f2").tobytes() for number in numbers),
                pack_nibbles(key_codes).tobytes(),
                pack_nibbles(value_codes).tobytes(),
            )
        )

    def decode(
        self, payload: memoryview, shape: KvShape, num_rows: int
    ) -> tuple[FloatArray, FloatArray]:
        heads, head_dim = shape.num_kv_heads, shape.head_dim
        groups = (heads, num_groups(num_rows), head_dim)
        key_count, value_count = int(np.prod(groups)), heads * num_rows
        halves = np.frombuffer(payload, dtype="<f2", count=2 * (key_count + value_count))
        require_finite(halves, self.name)
        wide = halves.astype(np.float32)
        key_zero_points, key_scales = wide[: 2 * key_count].reshape(2, *groups)
        value_zero_points, value_scales = wide[2 * key_count :].reshape(2, heads, num_rows, 1)
        packed = np.frombuffer(payload, dtype=np.uint8, offset=halves.nbytes)
        both = packed.reshape(2, -1)
        full = (heads, num_rows, head_dim)
        keys = unpack_nibbles(both[0], int(np.prod(full))).reshape(full).astype(np.float32)
        values = unpack_nibbles(both[1], int(np.prod(full))).reshape(full).astype(np.float32)
        for group, rows in enumerate(_row_slices(num_rows)):
            keys[:, rows] *= key_scales[:, group, None]
            keys[:, rows] += key_zero_points[:, group, None]
        values *= value_scales
        values += value_zero_points
        return keys, values


def num_groups(num_rows: int) -> int:
    """Groups of keys for that many rows."""
    return -(-num_rows // GROUP_ROWS)


def pack_nibbles(codes: ByteArray) -> ByteArray:
    """Two codes below 16 in a byte, the first in the low half; an odd one out is padded."""
    flat = codes.reshape(-1)
    if flat.size % 2:
        flat = np.append(flat, np.uint8(0))
    pairs = flat.view("<u2")
    packed: ByteArray = (pairs | (pairs >> 4)).astype(np.uint8)
    return packed


def unpack_nibbles(packed: ByteArray, count: int) -> ByteArray:
    """The inverse of `pack_nibbles`, [count] uint8."""
    wide = packed.astype("<u2")
    pairs = (wide | (wide << 4)) & 0x0F0F
    codes: ByteArray = pairs.view(np.uint8)[:count]
    return codes


def _row_slices(num_rows: int) -> list[slice]:
    return [slice(start, start + GROUP_ROWS) for start in range(0, num_rows, GROUP_ROWS)]


def _key_groups(keys: FloatArray) -> tuple[HalfArray, HalfArray]:
    """Zero points and scales, each [Hkv, G, D] float16."""
    groups = [_group(keys[:, rows], axis=1) for rows in _row_slices(keys.shape[1])]
    zero_points, scales = zip(*groups, strict=True)
    return np.stack(zero_points, axis=1), np.stack(scales, axis=1)


def _group(rows: FloatArray, axis: int) -> tuple[HalfArray, HalfArray]:
    """Zero point, rounded down, and scale, rounded up: all scalars lie between two codes."""
    low, high = rows.min(axis=axis), rows.max(axis=axis)
    zero_point = -_not_below(-low)
    return zero_point, round_up((high - zero_point.astype(np.float32)) / np.float32(_TOP_CODE))


def _not_below(numbers: FloatArray) -> HalfArray:
    rounded = numbers.astype(np.float16)
    return np.where(rounded < numbers, np.nextafter(rounded, np.float16(np.inf)), rounded)


def _codes(rows: FloatArray, zero_point: HalfArray, scale: HalfArray) -> ByteArray:
    scaled = rows - zero_point.astype(np.float32)
    scaled *= np.float32(1) / scale.astype(np.float32)
    return np.rint(scaled, out=scaled).astype(np.uint8)


def _bound(zero_points: HalfArray, scales: HalfArray) -> FloatArray:
    """Half a scale, and the rounding of the arithmetic."""
    rounding = np.abs(zero_points.astype(np.float32)) * np.float32(2.0**-23)
    bound: FloatArray = scales.astype(np.float32) * np.float32(0.501) + rounding
    return bound
