"""Raw codecs: K then V as fixed-width floats, each [N, D] row-major, little-endian."""

import numpy as np

from fedattn.core.codecs.checks import check_range, require_finite
from fedattn.core.codecs.codec import CodecId
from fedattn.core.types import FloatArray, HeadCounts


class RawCodec:
    """One float format.

    Args:
        name: for users.
        codec_id: RAW_FP32, RAW_FP16 or RAW_BF16.
        relative_error: largest |decoded - x| / |x| for x in the format's normal range.
        smallest: what is nearer to 0 than this may lose all its digits.
        largest: the format's largest value.
    """

    keys_before_rope = False
    is_fixed_size = True

    def __init__(
        self,
        name: str,
        codec_id: CodecId,
        *,
        relative_error: float,
        smallest: float,
        largest: float,
    ) -> None:
        self.name = name
        self.codec_id = codec_id
        self.relative_error = relative_error
        self.smallest = smallest
        self.largest = largest
        self._item_size = 4 if codec_id is CodecId.RAW_FP32 else 2

    def max_payload_size(self, head_dim: int, counts: HeadCounts) -> int:
        return 2 * head_dim * sum(counts) * self._item_size

    def error_bound(
        self, keys: FloatArray, values: FloatArray, counts: HeadCounts
    ) -> tuple[FloatArray, FloatArray]:
        return self._bound(keys), self._bound(values)

    def encode(self, keys: FloatArray, values: FloatArray, counts: HeadCounts) -> bytes:
        return self.encode_vectors(keys) + self.encode_vectors(values)

    def decode(
        self, payload: memoryview, head_dim: int, counts: HeadCounts
    ) -> tuple[FloatArray, FloatArray]:
        both = self.decode_vectors(payload, 2 * sum(counts), head_dim)
        return both[: sum(counts)], both[sum(counts) :]

    def vectors_size(self, num_vectors: int, size: int) -> int:
        return num_vectors * size * self._item_size

    def decode_vectors(self, payload: memoryview, num_vectors: int, size: int) -> FloatArray:
        scalars = self._unpack(payload)
        require_finite(scalars, self.name)
        return scalars.reshape(num_vectors, size)

    def _bound(self, rows: FloatArray) -> FloatArray:
        return np.maximum(np.abs(rows), np.float32(self.smallest)) * np.float32(self.relative_error)

    def encode_vectors(self, rows: FloatArray) -> bytes:
        check_range(rows, self.largest, self.name)
        match self.codec_id:
            case CodecId.RAW_FP32:
                return np.ascontiguousarray(rows, dtype="<f4").tobytes()
            case CodecId.RAW_FP16:
                return rows.astype("<f2").tobytes()
            case _:
                bits = np.ascontiguousarray(rows, dtype="<f4").view("<u4")
                # round to nearest, ties to even, on the 16 bits that are cut off
                rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
                return bytes(rounded.astype("<u2").tobytes())

    def _unpack(self, payload: memoryview) -> FloatArray:
        match self.codec_id:
            case CodecId.RAW_FP32:
                return np.frombuffer(payload, dtype="<f4")
            case CodecId.RAW_FP16:
                return np.frombuffer(payload, dtype="<f2").astype(np.float32)
            case _:
                wide = np.frombuffer(payload, dtype="<u2").astype(np.uint32) << 16
                return wide.view(np.float32)


RAW_CODECS = (
    RawCodec(
        "fp32",
        CodecId.RAW_FP32,
        relative_error=0.0,
        smallest=0.0,
        largest=float(np.finfo(np.float32).max),
    ),
    RawCodec("fp16", CodecId.RAW_FP16, relative_error=2.0**-11, smallest=2.0**-14, largest=65504.0),
    RawCodec(
        "bf16",
        CodecId.RAW_BF16,
        relative_error=2.0**-8,
        smallest=2.0**-126,
        largest=float.fromhex("0x1.fep127"),
    ),
)
