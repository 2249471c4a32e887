"""Entropy-coded integers: one scale for a whole head, few bits for what is frequent.

Keys travel before RoPE and without their channel means, which are sent beside them: however large
the biases of a model, codes are left for what differs from row to row. A head's scale is
a fixed multiple of the root mean square of what is left, so frequent codes are small numbers
and DEFLATE's Huffman stage (RFC 1951, no string matching) writes them in few bits. At the same
error this takes about two bits a scalar less than fixed-width codes with a scale a row: large
rows use more bits than small ones. CacheGen (arXiv 2310.07240) codes KV by arithmetic coding.

    decoded value = scale * code;  decoded key = scale * code + mean scale * mean code

    payload = scales of K, mean scales of K, scales of V, each [Hkv] float32
              DEFLATE of (mean codes [Hkv, D], codes of K, codes of V, each [Hkv, T, D]),
              a byte each, code + 128

The size is bounded: of all numbers with a given variance, normally distributed ones have the
largest entropy. Rows that come out larger all the same are coded again with larger scales.
"""

import math
import zlib

import numpy as np
import numpy.typing as npt

from fedattn.core.codecs.checks import check_range, require_finite
from fedattn.core.codecs.codec import CodecId
from fedattn.core.errors import CorruptFrameError
from fedattn.core.types import FloatArray, KvShape

_LARGEST = 1e15
"""Largest scalar that can be sent: the sum of a head's squares must fit float32."""
_LARGEST_SCALE = 1e30
_SMALLEST_SCALE = 1e-20
"""What is much smaller vanishes when it is squared, so its root mean square would come out as 0."""
_TOP_CODE = 127
_ZERO = 128
_REDUNDANCY = 1.07
"""Huffman coding against the entropy, for codes of one normal distribution."""
_TABLE_SIZE = 20
"""Code tables and framing of one DEFLATE block, bytes."""
_BLOCK_CODES = 1 << 15
_COARSER = 1.25
_MEAN_SCALE = 0.5
"""Scale of the channel means, as a multiple of the root mean square of the rows around them."""
CodeArray = npt.NDArray[np.int8]


class EntropyCodec:
    """Uniform codes of one scale a head, Huffman-coded.

    Args:
        name: for users.
        codec_id: its number.
        key_scale: scale of K as a multiple of the root mean square of a head's rows.
        value_scale: the same of V, which bears larger errors.
    """

    keys_before_rope = True
    is_fixed_size = False

    def __init__(
        self, name: str, codec_id: CodecId, *, key_scale: float, value_scale: float
    ) -> None:
        self.name = name
        self.codec_id = codec_id
        self._key_scale = key_scale
        self._value_scale = value_scale

    def max_payload_size(self, shape: KvShape, num_rows: int) -> int:
        num_scalars = shape.num_kv_heads * shape.head_dim * num_rows
        num_means = shape.num_kv_heads * shape.head_dim
        num_bits = num_scalars * (
            _largest_entropy(self._key_scale) + _largest_entropy(self._value_scale)
        )
        num_blocks = 3 + 2 * num_scalars // _BLOCK_CODES
        return (
            12 * shape.num_kv_heads
            + num_means  # at worst a byte each
            + num_blocks * _TABLE_SIZE
            + math.ceil(num_bits * _REDUNDANCY / 8)
        )

    def error_bound(self, keys: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Half a scale of the head, and the rounding of the sum with the mean."""
        coded, _ = self._code(keys, values)
        half = np.float32(0.501)
        rounding = np.abs(coded.mean_codes * coded.mean_scales) * np.float32(2.0**-23)
        return coded.key_scales * half + rounding, coded.value_scales * half

    def encode(self, keys: FloatArray, values: FloatArray) -> bytes:
        check_range(keys, _LARGEST, self.name)
        check_range(values, _LARGEST, self.name)
        coded, stream = self._code(keys, values)
        scales = (coded.key_scales, coded.mean_scales, coded.value_scales)
        return b"".join((*(scale.astype("<f4").tobytes() for scale in scales), stream))

    def decode(
        self, payload: memoryview, shape: KvShape, num_rows: int
    ) -> tuple[FloatArray, FloatArray]:
        heads, head_dim = shape.num_kv_heads, shape.head_dim
        if len(payload) < 12 * heads:
            raise CorruptFrameError(f"{self.name} frame ends within its scales")
        scales = np.frombuffer(payload, dtype="<f4", count=3 * heads)
        require_finite(scales, self.name)
        if np.abs(scales).max() > _LARGEST_SCALE:
            raise CorruptFrameError(f"{self.name} frame has a scale above {_LARGEST_SCALE:g}")
        codes = self._inflate(payload[12 * heads :], heads * head_dim * (1 + 2 * num_rows))
        key_scales, mean_scales, value_scales = scales.reshape(3, heads, 1, 1)
        means = codes[: heads * head_dim].reshape(heads, 1, head_dim) * mean_scales
        both = codes[heads * head_dim :].reshape(2, heads, num_rows, head_dim)
        keys = both[0] * key_scales
        keys += means
        values = both[1] * value_scales
        return keys, values

    def _inflate(self, stream: memoryview, num_codes: int) -> CodeArray:
        """Exactly `num_codes` codes; never holds more than one byte more."""
        inflater = zlib.decompressobj(wbits=-15)
        try:
            plain = inflater.decompress(stream, num_codes + 1)
        except zlib.error as error:
            raise CorruptFrameError(f"{self.name} frame is no DEFLATE stream: {error}") from None
        if len(plain) != num_codes or not inflater.eof or inflater.unused_data:
            raise CorruptFrameError(
                f"{self.name} frame: expected {num_codes} codes and the end of the stream, "
                f"got {'more' if len(plain) > num_codes else len(plain)}"
            )
        return (np.frombuffer(plain, dtype=np.uint8) ^ _ZERO).view(np.int8)

    def _code(self, keys: FloatArray, values: FloatArray) -> tuple["_Codes", bytes]:
        """Codes and their stream, with scales so large that it fits."""
        heads, num_rows, head_dim = keys.shape
        shape = KvShape(num_layers=1, num_kv_heads=heads, head_dim=head_dim)
        limit = self.max_payload_size(shape, num_rows) - 12 * heads
        coarser = 1.0
        while True:
            coded = _Codes(keys, values, self._key_scale * coarser, self._value_scale * coarser)
            stream = _deflate(coded)
            if len(stream) <= limit:
                return coded, stream
            coarser *= _COARSER


class _Codes:
    """Quantised rows: scales [Hkv, 1, 1] float32, codes int8."""

    def __init__(
        self, keys: FloatArray, values: FloatArray, key_scale: float, value_scale: float
    ) -> None:
        means = keys.mean(axis=1, keepdims=True)
        spread = _root_mean_square(keys - means) * np.float32(_MEAN_SCALE)
        self.mean_scales = np.maximum(spread, _least_scales(means))
        self.mean_codes = _round(means, self.mean_scales)
        rest = keys - self.mean_codes * self.mean_scales
        self.key_scales = _scales(rest, key_scale)
        self.key_codes = _round(rest, self.key_scales)
        self.value_scales = _scales(values, value_scale)
        self.value_codes = _round(values, self.value_scales)


def _largest_entropy(relative_scale: float) -> float:
    """Most bits of a code: an integer of variance s has less than those of a normal one.

    Source: 0.5 log2(2 pi e (s + 1/12)), Cover and Thomas, Elements of Information Theory, 8.7.
    """
    variance = 1 / relative_scale**2 + 1 / 12
    return 0.5 * math.log2(2 * math.pi * math.e * variance)


def _scales(rows: FloatArray, relative_scale: float) -> FloatArray:
    """Scale of each head, [Hkv, 1, 1] float32."""
    scales: FloatArray = np.maximum(
        _root_mean_square(rows) * np.float32(relative_scale), _least_scales(rows)
    )
    return scales


def _root_mean_square(rows: FloatArray) -> FloatArray:
    """Of each head, [Hkv, 1, 1] float32."""
    flat = rows.reshape(len(rows), -1)
    squares: FloatArray = np.einsum("ij,ij->i", flat, flat) / np.float32(flat.shape[1])
    roots: FloatArray = np.sqrt(squares)
    return roots[:, None, None]


def _least_scales(rows: FloatArray) -> FloatArray:
    """The smallest scale of each head at which its largest scalar has a code, [Hkv, 1, 1]."""
    largest = np.maximum(rows.max(axis=(1, 2)), -rows.min(axis=(1, 2)))
    scales: FloatArray = np.maximum(largest / np.float32(_TOP_CODE), np.float32(_SMALLEST_SCALE))
    return scales[:, None, None]


def _round(rows: FloatArray, scales: FloatArray) -> CodeArray:
    scaled = rows * (np.float32(1) / scales)
    return np.rint(scaled, out=scaled).astype(np.int8)


def _deflate(coded: _Codes) -> bytes:
    deflater = zlib.compressobj(
        level=1, method=zlib.DEFLATED, wbits=-15, memLevel=9, strategy=zlib.Z_HUFFMAN_ONLY
    )
    pieces = [
        deflater.compress(_to_bytes(coded.mean_codes)),
        deflater.flush(zlib.Z_BLOCK),  # means, keys and values have code tables of their own
        deflater.compress(_to_bytes(coded.key_codes)),
        deflater.flush(zlib.Z_BLOCK),
        deflater.compress(_to_bytes(coded.value_codes)),
        deflater.flush(),
    ]
    return b"".join(pieces)


def _to_bytes(codes: CodeArray) -> bytes:
    shifted: bytes = (codes.view(np.uint8) ^ _ZERO).tobytes()
    return shifted
