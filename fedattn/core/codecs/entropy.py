"""Entropy-coded integers: one scale for a whole head, few bits for what is frequent.

Keys travel before RoPE and without their channel means, which are sent beside them: however large
the biases of a model, codes are left for what differs from row to row. A head's scale is
a fixed multiple of the root mean square of what is left, so frequent codes are small numbers
and DEFLATE's Huffman stage (RFC 1951, no string matching) writes them in few bits. At the same
error this takes about two bits a scalar less than fixed-width codes with a scale a row: large
rows use more bits than small ones. CacheGen (arXiv 2310.07240) codes KV by arithmetic coding.

    decoded value = scale * code;  decoded key = scale * code + mean scale * mean code

    payload = scales of K, mean scales of K, scales of V, each [H] float32
              DEFLATE of (mean codes [H, D], codes of K, codes of V, each [N, D]),
              a byte each, code + 128

H counts the heads that have rows; of the others nothing is written.

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
from fedattn.core.types import FloatArray, HeadCounts, head_slices

_LARGEST = 1e15
"""Largest scalar that can be sent: the sum of a head's squares must fit float32."""
_LARGEST_SCALE = 1e30
_SMALLEST_SCALE = 1e-20
"""What is much smaller vanishes when it is squared, so its root mean square would come out as 0."""
_SCALES_SIZE = 12
"""Three float32 of each head that has rows."""
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
        self._largest_bits = _largest_entropy(key_scale) + _largest_entropy(value_scale)

    def max_payload_size(self, head_dim: int, counts: HeadCounts) -> int:
        num_heads, num_scalars = len(_with_rows(counts)), sum(counts) * head_dim
        num_bits = num_scalars * self._largest_bits
        num_blocks = 3 + 2 * num_scalars // _BLOCK_CODES
        return (
            num_heads * (_SCALES_SIZE + head_dim)  # means: at worst a byte each
            + num_blocks * _TABLE_SIZE
            + math.ceil(num_bits * _REDUNDANCY / 8)
        )

    def error_bound(
        self, keys: FloatArray, values: FloatArray, counts: HeadCounts
    ) -> tuple[FloatArray, FloatArray]:
        """Half a scale of the head, and the rounding of the sum with the mean."""
        counts = _with_rows(counts)
        coded, _ = self._code(keys, values, counts)
        key_scales, mean_scales, value_scales = coded.scales[..., None]
        half = np.float32(0.501)
        rounding = np.abs(coded.mean_codes * mean_scales) * np.float32(2.0**-23)
        return (
            np.repeat(key_scales * half + rounding, counts, axis=0),
            np.repeat(value_scales * half, counts, axis=0),
        )

    def encode(self, keys: FloatArray, values: FloatArray, counts: HeadCounts) -> bytes:
        check_range(keys, _LARGEST, self.name)
        check_range(values, _LARGEST, self.name)
        coded, stream = self._code(keys, values, _with_rows(counts))
        return coded.scales.astype("<f4").tobytes() + stream

    def decode(
        self, payload: memoryview, head_dim: int, counts: HeadCounts
    ) -> tuple[FloatArray, FloatArray]:
        counts = _with_rows(counts)
        heads, num_rows = len(counts), sum(counts)
        if len(payload) < _SCALES_SIZE * heads:
            raise CorruptFrameError(f"{self.name} frame ends within its scales")
        scales = np.frombuffer(payload, dtype="<f4", count=3 * heads)
        require_finite(scales, self.name)
        if np.abs(scales).max() > _LARGEST_SCALE:
            raise CorruptFrameError(f"{self.name} frame has a scale above {_LARGEST_SCALE:g}")
        codes = self._inflate(payload[scales.nbytes :], (heads + 2 * num_rows) * head_dim)
        rows = codes.reshape(heads + 2 * num_rows, head_dim)
        key_scales, mean_scales, value_scales = scales.reshape(3, heads, 1)
        means = rows[:heads] * mean_scales
        keys, values = np.empty((2, num_rows, head_dim), dtype=np.float32)
        key_codes, value_codes = rows[heads : heads + num_rows], rows[heads + num_rows :]
        for head, own in enumerate(head_slices(counts)):
            np.multiply(key_codes[own], key_scales[head], out=keys[own])
            keys[own] += means[head]
            np.multiply(value_codes[own], value_scales[head], out=values[own])
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

    def _code(
        self, keys: FloatArray, values: FloatArray, counts: HeadCounts
    ) -> tuple["_Codes", bytes]:
        """Codes and their stream, with scales so large that it fits."""
        limit = self.max_payload_size(keys.shape[1], counts) - _SCALES_SIZE * len(counts)
        coarser = 1.0
        while True:
            coded = _Codes(len(keys), keys.shape[1], len(counts))
            for head, own in enumerate(head_slices(counts)):
                coded.put_keys(head, own, keys[own], self._key_scale * coarser)
                coded.put_values(head, own, values[own], self._value_scale * coarser)
            stream = _deflate(coded)
            if len(stream) <= limit:
                return coded, stream
            coarser *= _COARSER


class _Codes:
    """Quantised rows, head after head.

    Attributes:
        scales: [3, H] float32, of K, of its means and of V.
        mean_codes, key_codes, value_codes: [H, D], [N, D] and [N, D] int8.
    """

    def __init__(self, num_rows: int, head_dim: int, num_heads: int) -> None:
        self.scales = np.empty((3, num_heads), dtype=np.float32)
        self.mean_codes = np.empty((num_heads, head_dim), dtype=np.int8)
        self.key_codes, self.value_codes = np.empty((2, num_rows, head_dim), dtype=np.int8)

    def put_keys(self, head: int, own: slice, keys: FloatArray, relative_scale: float) -> None:
        means = keys.mean(axis=0)
        spread = _root_mean_square(keys - means) * np.float32(_MEAN_SCALE)
        mean_scale = np.maximum(spread, _least_scale(means))
        self.mean_codes[head] = _round(means, mean_scale)
        rest = keys - self.mean_codes[head] * mean_scale
        scale = _scale(rest, relative_scale)
        self.key_codes[own] = _round(rest, scale)
        self.scales[:2, head] = scale, mean_scale

    def put_values(self, head: int, own: slice, values: FloatArray, relative_scale: float) -> None:
        scale = _scale(values, relative_scale)
        self.value_codes[own] = _round(values, scale)
        self.scales[2, head] = scale


def _with_rows(counts: HeadCounts) -> HeadCounts:
    """Those of heads that have rows."""
    return tuple(count for count in counts if count)


def _largest_entropy(relative_scale: float) -> float:
    """Most bits of a code: an integer of variance s has less than those of a normal one.

    Source: 0.5 log2(2 pi e (s + 1/12)), Cover and Thomas, Elements of Information Theory, 8.7.
    """
    variance = 1 / relative_scale**2 + 1 / 12
    return 0.5 * math.log2(2 * math.pi * math.e * variance)


def _scale(rows: FloatArray, relative_scale: float) -> np.float32:
    """Scale of the rows of one head."""
    return max(_root_mean_square(rows) * np.float32(relative_scale), _least_scale(rows))


def _root_mean_square(rows: FloatArray) -> np.float32:
    flat = rows.reshape(-1)
    root: np.float32 = np.sqrt(np.einsum("i,i->", flat, flat) / np.float32(flat.size))
    return root


def _least_scale(rows: FloatArray) -> np.float32:
    """The smallest scale at which the largest scalar has a code."""
    largest = max(rows.max(), -rows.min())
    return max(largest / np.float32(_TOP_CODE), np.float32(_SMALLEST_SCALE))


def _round(rows: FloatArray, scale: np.float32) -> FloatArray:
    """Codes, whole numbers from -127 to 127."""
    scaled: FloatArray = rows * (np.float32(1) / scale)
    np.rint(scaled, out=scaled)
    return scaled


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
