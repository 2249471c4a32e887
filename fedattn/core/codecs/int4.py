"""int4 in the KIVI layout: keys per channel in groups of rows, values per row.

Keys differ mostly by channel, values by row (KIVI, arXiv 2402.02750); keys travel before RoPE,
which keeps a channel's range narrow (KVQuant, arXiv 2401.18079). A group has a zero point and a
scale:

    decoded = zero_point + scale * code, code 0 to 15

    payload = zero points and scales of K, each [G, D] float16, G groups of 32 rows of one head,
              the last of each head shorter
              zero points and scales of V, each [N] float16
              codes of K, then V, each [N, D], two in a byte, low half first
"""

import numpy as np
import numpy.typing as npt

from fedattn.core.codecs.checks import check_range, require_finite
from fedattn.core.codecs.codec import CodecId
from fedattn.core.codecs.int8 import HalfArray, round_up
from fedattn.core.types import FloatArray, HeadCounts, head_slices

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

    def max_payload_size(self, head_dim: int, counts: HeadCounts) -> int:
        num_rows = sum(counts)
        num_groups = sum(-(-count // GROUP_ROWS) for count in counts)
        return 2 * ((num_rows * head_dim + 1) // 2) + 4 * (num_groups * head_dim + num_rows)

    def error_bound(
        self, keys: FloatArray, values: FloatArray, counts: HeadCounts
    ) -> tuple[FloatArray, FloatArray]:
        """Half a scale of the group: its range / 30, and the rounding of zero_point and scale."""
        groups = _group_slices(counts)
        key_bounds = _bound(*_key_groups(keys, groups))
        sizes = [rows.stop - rows.start for rows in groups]
        return np.repeat(key_bounds, sizes, axis=0), _bound(*_value_groups(values))

    def encode(self, keys: FloatArray, values: FloatArray, counts: HeadCounts) -> bytes:
        check_range(keys, _LARGEST, self.name)
        check_range(values, _LARGEST, self.name)
        groups = _group_slices(counts)
        key_groups, value_groups = _key_groups(keys, groups), _value_groups(values)
        key_codes = np.empty(keys.shape, dtype=np.uint8)
        for rows, zero_point, scale in zip(groups, *key_groups, strict=True):
            key_codes[rows] = _codes(keys[rows], zero_point, scale)
        codes = (key_codes, _codes(values, *value_groups))
        return b"".join(
            (
                *(numbers.astype("<f2").tobytes() for numbers in (*key_groups, *value_groups)),
                *(pack_nibbles(one).tobytes() for one in codes),
            )
        )

    def decode(
        self, payload: memoryview, head_dim: int, counts: HeadCounts
    ) -> tuple[FloatArray, FloatArray]:
        num_rows, groups = sum(counts), _group_slices(counts)
        num_key_halves = 2 * len(groups) * head_dim
        halves = np.frombuffer(payload, dtype="<f2", count=num_key_halves + 2 * num_rows)
        require_finite(halves, self.name)
        wide = halves.astype(np.float32)
        key_groups = wide[:num_key_halves].reshape(2, len(groups), head_dim)
        value_zero_points, value_scales = wide[num_key_halves:].reshape(2, num_rows, 1)
        packed = np.frombuffer(payload, dtype=np.uint8, offset=halves.nbytes).reshape(2, -1)
        keys, values = (
            unpack_nibbles(one, num_rows * head_dim).reshape(num_rows, head_dim).astype(np.float32)
            for one in packed
        )
        for rows, zero_point, scale in zip(groups, *key_groups, strict=True):
            keys[rows] *= scale
            keys[rows] += zero_point
        values *= value_scales
        values += value_zero_points
        return keys, values


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


def _group_slices(counts: HeadCounts) -> list[slice]:
    """Where the rows of each group of keys are.

    Example: counts 40 and 4 give 0:32, 32:40 and 40:44.
    """
    return [
        slice(start, min(start + GROUP_ROWS, head.stop))
        for head in head_slices(counts)
        for start in range(head.start, head.stop, GROUP_ROWS)
    ]


def _key_groups(keys: FloatArray, groups: list[slice]) -> tuple[HalfArray, HalfArray]:
    """Zero points and scales, each [G, D] float16."""
    low = np.stack([keys[rows].min(axis=0) for rows in groups])
    return _group(low, np.stack([keys[rows].max(axis=0) for rows in groups]))


def _value_groups(values: FloatArray) -> tuple[HalfArray, HalfArray]:
    """Zero points and scales, each [N, 1] float16."""
    return _group(values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True))


def _group(low: FloatArray, high: FloatArray) -> tuple[HalfArray, HalfArray]:
    """Zero point, rounded down, and scale, rounded up: all scalars lie between two codes."""
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
