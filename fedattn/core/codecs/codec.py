"""What a codec is: KV rows of one layer to bytes and back."""

from enum import IntEnum
from typing import Protocol

from fedattn.core.types import FloatArray, HeadCounts


class CodecId(IntEnum):
    """Number of a codec on the wire. Never reuse one."""

    RAW_FP32 = 1
    RAW_FP16 = 2
    RAW_BF16 = 3
    INT8 = 4
    INT4 = 5
    ENTROPY_FINE = 6
    ENTROPY_MEDIUM = 7
    ENTROPY_COARSE = 8
    ENTROPY_FINEST = 9


class VectorCodec(Protocol):
    """Turns vectors of one kind into bytes and back, each by itself: queries, or what they found.

    Stateless, usable from any thread.
    """

    @property
    def name(self) -> str:
        """For users."""

    @property
    def codec_id(self) -> CodecId:
        """For the wire."""

    def vectors_size(self, num_vectors: int, size: int) -> int:
        """Bytes of so many vectors of so many scalars."""

    def encode_vectors(self, rows: FloatArray) -> bytes:
        """Encode [N, D] float32.

        Raises:
            OverflowError: a value is NaN or outside the range of the format.
        """

    def decode_vectors(self, payload: memoryview, num_vectors: int, size: int) -> FloatArray:
        """Decode to [N, D] float32. The caller has checked the size.

        Raises:
            CorruptFrameError: it holds a value that is not finite.
        """


class Codec(Protocol):
    """Turns the K and V of one layer into bytes and back. Stateless, usable from any thread.

    Rows come head after head, each head as many as `counts` says, some perhaps none; N are those of
    all heads. Keys come and go before or after RoPE as `keys_before_rope` says; the frame sees to
    that.
    """

    @property
    def name(self) -> str:
        """For users."""

    @property
    def codec_id(self) -> CodecId:
        """For the wire."""

    @property
    def keys_before_rope(self) -> bool:
        """Whether keys come to `encode` and leave `decode` before RoPE."""

    @property
    def is_fixed_size(self) -> bool:
        """Whether every payload has exactly `max_payload_size`."""

    def max_payload_size(self, head_dim: int, counts: HeadCounts) -> int:
        """Bytes that `encode`'s result never exceeds; exact if `is_fixed_size`."""

    def error_bound(
        self, keys: FloatArray, values: FloatArray, counts: HeadCounts
    ) -> tuple[FloatArray, FloatArray]:
        """Largest absolute error of each decoded scalar, broadcastable to [N, D]."""

    def encode(self, keys: FloatArray, values: FloatArray, counts: HeadCounts) -> bytes:
        """Encode K and V, each [N, D] float32, N >= 1.

        Raises:
            OverflowError: a value is NaN or outside the range of the format.
        """

    def decode(
        self, payload: memoryview, head_dim: int, counts: HeadCounts
    ) -> tuple[FloatArray, FloatArray]:
        """Decode to K and V, each [N, D] float32. The caller has checked the size.

        Raises:
            CorruptFrameError: the bytes are none of this codec's, or hold a value not finite.
        """
