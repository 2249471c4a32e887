"""Small rows, rules and layouts that several tests start from."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from fedattn.core.codecs import codec_by_name
from fedattn.core.frame_headers import HEADER_SIZE, FrameSpec
from fedattn.core.frames import encode_frame
from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.core.rotary import Rotary
from fedattn.core.spans import SessionLayout, Span, build_layout
from fedattn.core.types import HeadCounts, HeadRows, KvShape

SENDER = "node-7"
SHAPE = KvShape(num_layers=4, num_kv_heads=1, head_dim=2)
SPAN = Span(3, 5)
LAYER = 2
ROTARY = Rotary(inverse_frequencies=np.array([1.0]))
WIDE_SPAN = Span(3, 13)
KEPT = (3, 4, 12)
"""Positions of WIDE_SPAN whose rows travel; as a bitmap 03 02."""


def sample_rules(
    codec: str = "bf16",
    *,
    shape: KvShape = SHAPE,
    span: Span = SPAN,
    counts: HeadCounts | None = None,
    is_refitted: bool = False,
) -> FrameSpec:
    """What a receiver accepts from SENDER: all rows of the span, or `counts` of them."""
    return FrameSpec(
        sender=SENDER,
        shape=shape,
        codec=codec_by_name(codec),
        span=span,
        counts=(len(span),) * shape.num_kv_heads if counts is None else counts,
        is_refitted=is_refitted,
    )


def sample_rows(
    *, shape: KvShape = SHAPE, span: Span = SPAN, positions: Sequence[Sequence[int]] = ()
) -> HeadRows:
    """Rows whose scalars have at most 8 significant bits: raw codecs keep them exactly.

    Those of the whole span, or those at `positions` of each head.
    """
    heads = positions or [range(span.start, span.stop)] * shape.num_kv_heads
    at = np.concatenate([np.array(head, dtype=np.int64) for head in heads])
    scalars = (np.arange(2 * len(at) * shape.head_dim) % 251 - 125).astype(np.float32) / 16
    keys, values = scalars.reshape(2, len(at), shape.head_dim).astype(np.float32)
    return HeadRows(keys=keys, values=values, positions=at, counts=tuple(map(len, heads)))


def sample_frame(codec: str = "bf16", *, layer: int = LAYER) -> bytes:
    """A frame that `sample_rules` accepts."""
    return encode_frame(sample_rows(), layer, codec_by_name(codec), SPAN, ROTARY)


def kept_rules(codec: str = "bf16") -> FrameSpec:
    """What a receiver accepts of SENDER where three rows of ten travel."""
    return sample_rules(codec, span=WIDE_SPAN, counts=(len(KEPT),))


def kept_frame(codec: str = "bf16") -> bytes:
    """A frame that `kept_rules` accepts, with a bitmap."""
    rows = sample_rows(positions=[KEPT])
    return encode_frame(rows, LAYER, codec_by_name(codec), WIDE_SPAN, ROTARY)


_SEALING = 7  # its place in the header


def sealed(frame: bytes | bytearray) -> bytes:
    """The same bytes with the right checksum, which is none if the body is sealed."""
    checksum = zlib.crc32(frame[HEADER_SIZE:], zlib.crc32(frame[: HEADER_SIZE - 4]))
    checksum = 0 if frame[_SEALING] else checksum
    return (
        bytes(frame[: HEADER_SIZE - 4]) + struct.pack("<I", checksum) + bytes(frame[HEADER_SIZE:])
    )


def same_rows(left: HeadRows, right: HeadRows) -> bool:
    """Whether they are equal, bit by bit."""
    return (
        np.array_equal(left.keys, right.keys)
        and np.array_equal(left.values, right.values)
        and np.array_equal(left.positions, right.positions)
        and left.counts == right.counts
        and (left.biases is None) == (right.biases is None)
        and (left.biases is None or bool((left.biases == right.biases).all()))
    )


def rotary_of(head_dim: int) -> Rotary:
    """Turns every channel, the usual frequencies."""
    pairs = head_dim // 2
    return Rotary(inverse_frequencies=10000.0 ** (-np.arange(pairs) / max(1, pairs)))


def sample_layout(contributors: tuple[int, ...], publisher: tuple[int, ...]) -> SessionLayout:
    """Prefix 1 token, contributors a of 2 and b of 1, publisher p of 2, with these sync layers."""
    return build_layout(
        num_layers=5,
        prefix_len=1,
        contributors=[("a", 2), ("b", 1)],
        publisher=("p", 2),
        plans=RolePlans(contributors=SyncPlan(contributors), publisher=SyncPlan(publisher)),
    )
