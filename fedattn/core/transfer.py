"""One participant's rows on their way: choose and encode, decode and place."""

from collections.abc import Collection

import numpy as np

from fedattn.core.frames import (
    FrameSpec,
    ReceivedFrame,
    decode_body,
    encode_frame,
    max_frame_size,
)
from fedattn.core.rotary import Rotary
from fedattn.core.selection import SpanRows, select_rows
from fedattn.core.spans import Member
from fedattn.core.types import IntArray, KvRows, KvShape, Queries


def write_frame(  # noqa: PLR0917 - spelt out
    member: Member,
    layer: int,
    rows: KvRows,
    queries: Queries,
    rotary: Rotary | None = None,
    withheld: Collection[int] = (),
) -> bytes:
    """The frame of one layer: the rows that `member.compression` keeps, encoded.

    Args:
        member: whose rows these are.
        layer: zero-based.
        rows: all computed rows of its span, keys after RoPE, at its computed positions.
        queries: fetches those of the same tokens, if the selector looks at them.
        rotary: of the model.
        withheld: tokens of the span, counted from its first, whose rows never travel.

    Raises:
        InvalidRequestError: a value does not fit the codec.
        PolicyRefusedError: fewer rows may travel than the session has laid out.
    """
    compression = member.compression
    if member.num_sent < rows.num_rows or withheld:
        span_rows = SpanRows(
            queries=queries,
            keys=rows.keys,
            values=rows.values,
            positions=rows.positions,
            random=np.random.default_rng([compression.seed, member.computed_span.start, layer]),
        )
        kept = select_rows(
            span_rows,
            compression.selector,
            member.num_sent,
            keep_ends=compression.keep_ends,
            withheld=_places(rows, member, withheld),
        )
        rows = KvRows(
            keys=rows.keys[:, kept], values=rows.values[:, kept], positions=rows.positions[kept]
        )
    return encode_frame(rows, layer, compression.codec, member.computed_span, rotary)


def _places(rows: KvRows, member: Member, tokens: Collection[int]) -> IntArray:
    """Indices of the rows of some tokens of the span; tokens that were not computed have none."""
    return np.flatnonzero(np.isin(rows.positions - member.computed_span.start, list(tokens)))


def frame_spec(member: Member, shape: KvShape) -> FrameSpec:
    """What frames of a member must look like."""
    return FrameSpec(
        sender=member.node_id,
        shape=shape,
        codec=member.compression.codec,
        span=member.computed_span,
        num_rows=member.num_sent,
        is_sealed=member.is_sealed,
    )


def read_frame(
    frame: ReceivedFrame, member: Member, shape: KvShape, rotary: Rotary | None = None
) -> KvRows:
    """The rows of a checked frame, as `write_frame` got them: keys after RoPE, computed positions.

    Raises:
        CorruptFrameError: positions or values are wrong.
    """
    return decode_body(frame, frame_spec(member, shape), rotary)


def place_rows(rows: KvRows, member: Member, rotary: Rotary) -> KvRows:
    """Decoded rows of a member where its span is in this session."""
    if member.position_offset == 0:
        return rows
    return KvRows(
        keys=rotary.apply(rows.keys, np.array([member.position_offset])),
        values=rows.values,
        positions=rows.positions + member.position_offset,
    )


def max_upload_size(member: Member, shape: KvShape) -> int:
    """Bytes that a frame of this member never exceeds; exact for a codec of fixed size."""
    return max_frame_size(frame_spec(member, shape))
