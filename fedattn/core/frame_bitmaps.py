"""Which rows a frame has, and their biases: what stands in its body before the payload."""

import numpy as np

from fedattn.core.errors import CorruptFrameError
from fedattn.core.frame_headers import FrameSpec, bitmaps_size
from fedattn.core.spans import Span
from fedattn.core.types import FloatArray, HeadRows, IntArray

_BIAS_STEP = np.float32(1 / 16)
_TOP_BIAS = 127


def write_bitmaps(rows: HeadRows, span: Span) -> bytes:
    """The bitmaps of all heads; empty if all rows of the span are there."""
    places = rows.positions - span.start
    if places.min() < 0 or places.max() >= len(span):
        low, high = rows.positions.min(), rows.positions.max()
        raise ValueError(f"rows at {low} to {high} are not all of {span}")
    if not bitmaps_size(len(span), rows.counts):
        return b""
    kept = np.zeros((len(rows.counts), len(span)), dtype=np.bool_)
    for bits, head in zip(kept, rows.heads, strict=True):
        bits[places[head]] = True
    return np.packbits(kept, axis=1, bitorder="little").tobytes()


def read_bitmaps(bitmaps: memoryview, spec: FrameSpec) -> IntArray:
    """Global positions of the rows, [N] int64.

    Raises:
        CorruptFrameError: they are others than those awaited.
    """
    if not bitmaps:
        return np.tile(np.arange(spec.span.start, spec.span.stop), len(spec.counts))
    packed = np.frombuffer(bitmaps, dtype=np.uint8).reshape(len(spec.counts), -1)
    bits = np.unpackbits(packed, axis=1, bitorder="little")
    for head, (expected, got) in enumerate(zip(spec.counts, bits.sum(axis=1), strict=True)):
        if got != expected:
            raise CorruptFrameError(
                f"bitmap of head {head} expected {expected} rows within {len(spec.span)} "
                f"positions, got {got}"
            )
    if bits[:, len(spec.span) :].any():
        raise CorruptFrameError(f"bitmap has rows behind its {len(spec.span)} positions")
    return np.nonzero(bits)[1] + spec.span.start


def write_biases(biases: FloatArray) -> bytes:
    """Biases [N] float32, a byte each."""
    codes = np.clip(np.rint(biases / _BIAS_STEP), -_TOP_BIAS, _TOP_BIAS)
    written: bytes = codes.astype(np.int8).tobytes()
    return written


def read_biases(body: memoryview, spec: FrameSpec) -> FloatArray | None:
    """[N] float32; None if there are none.

    Raises:
        CorruptFrameError: one is out of range.
    """
    if not spec.biases_size:
        return None
    codes = np.frombuffer(body, dtype=np.int8, count=spec.num_rows)
    if codes.min() < -_TOP_BIAS:
        raise CorruptFrameError(f"a bias is out of range, at least {-_TOP_BIAS} was expected")
    return codes * _BIAS_STEP
