"""Codecs: KV rows to bytes and back.

A codec is one small object. To add one: give it a new `CodecId`, implement the interface, list it
in `CODECS`; the property and golden-frame tests pick it up from there.
"""

from enum import IntEnum
from typing import Protocol

import numpy as np

from fedattn.core.errors import CorruptFrameError, InvalidRequestError
from fedattn.core.types import FloatArray, KvShape


class CodecId(IntEnum):
    """Number of a codec on the wire. Never reuse one."""

    RAW_FP32 = 1
    RAW_FP16 = 2
    RAW_BF16 = 3


class Codec(Protocol):
    """Turns the K and V of one layer into bytes and back."""

    name: str
    codec_id: CodecId
    relative_error: float
    """Upper bound of |decoded - x| / |x| for x inside the normal range of the format."""

    def payload_size(self, shape: KvShape, num_rows: int) -> int:
        """Exact size of `encode`'s result in bytes."""

    def encode(self, keys: FloatArray, values: FloatArray) -> bytes:
        """Encode K and V, each [Hkv, T, D] float32.

        Raises:
            OverflowError: a value is NaN or outside the range of the format.
        """

    def decode(
        self, payload: memoryview, shape: KvShape, num_rows: int
    ) -> tuple[FloatArray, FloatArray]:
        """Decode to K and V, each [Hkv, T, D] float32. The caller has checked the size.

        Raises:
            CorruptFrameError: the bytes hold a value that is not finite.
        """


class _RawCodec:
    """Fixed-width floats: K then V, each [Hkv, T, D] row-major, little-endian."""

    def __init__(
        self,
        name: str,
        codec_id: CodecId,
        *,
        item_size: int,
        relative_error: float,
        largest: float,
    ) -> None:
        self.name = name
        self.largest = largest
        self.codec_id = codec_id
        self.item_size = item_size
        self.relative_error = relative_error

    def payload_size(self, shape: KvShape, num_rows: int) -> int:
        return shape.values_per_row * num_rows * self.item_size

    def encode(self, keys: FloatArray, values: FloatArray) -> bytes:
        return self._pack(keys) + self._pack(values)

    def decode(
        self, payload: memoryview, shape: KvShape, num_rows: int
    ) -> tuple[FloatArray, FloatArray]:
        scalars = self._unpack(payload)
        if not np.isfinite(scalars).all():
            raise CorruptFrameError(
                f"{self.name} frame holds NaN or infinity; the sender must check its model"
            )
        both = scalars.reshape(2, shape.num_kv_heads, num_rows, shape.head_dim)
        return both[0], both[1]

    def _pack(self, rows: FloatArray) -> bytes:
        if not np.abs(rows).max(initial=0.0) <= self.largest:  # NaN fails too
            raise OverflowError(
                f"KV value outside {self.name} (largest {self.largest:.4g}), or NaN; "
                f"use a wider codec, or check the model"
            )
        match self.codec_id:
            case CodecId.RAW_FP32:
                return np.ascontiguousarray(rows, dtype="<f4").tobytes()
            case CodecId.RAW_FP16:
                return rows.astype("<f2").tobytes()
            case CodecId.RAW_BF16:
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
            case CodecId.RAW_BF16:
                wide = np.frombuffer(payload, dtype="<u2").astype(np.uint32) << 16
                return wide.view(np.float32)


_MAX_FP32 = float(np.finfo(np.float32).max)
_MAX_BF16 = float.fromhex("0x1.fep127")
CODECS: tuple[Codec, ...] = (
    _RawCodec("fp32", CodecId.RAW_FP32, item_size=4, relative_error=0.0, largest=_MAX_FP32),
    _RawCodec("fp16", CodecId.RAW_FP16, item_size=2, relative_error=2.0**-11, largest=65504.0),
    _RawCodec("bf16", CodecId.RAW_BF16, item_size=2, relative_error=2.0**-8, largest=_MAX_BF16),
)
CODEC_NAMES: tuple[str, ...] = tuple(codec.name for codec in CODECS)
DEFAULT_CODEC = "bf16"

_BY_ID = {codec.codec_id: codec for codec in CODECS}
_BY_NAME = {codec.name: codec for codec in CODECS}


def codec_by_name(name: str) -> Codec:
    """The codec a user named.

    Raises:
        InvalidRequestError: there is none of that name.
    """
    if name not in _BY_NAME:
        raise InvalidRequestError(
            f"unknown codec {name[:40]!r}; choose one of {', '.join(CODEC_NAMES)}"
        )
    return _BY_NAME[name]


def find_codec(codec_id: int) -> Codec | None:
    """The codec with that number on the wire, or None."""
    return _BY_ID.get(codec_id)  # type: ignore[call-overload, no-any-return]
