"""One participant's rows on their way: choose and encode, decode and place."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from fedattn.core.errors import InternalError
from fedattn.core.frame_headers import FrameSpec, max_frame_size
from fedattn.core.frames import ReceivedFrame, decode_body, encode_frame
from fedattn.core.refit import behind_span, refit_rows
from fedattn.core.rotary import Rotary
from fedattn.core.row_scores import RowScorer
from fedattn.core.selection import LEARNED, select_rows, token_scores
from fedattn.core.spans import Member
from fedattn.core.types import FloatArray, HeadRows, IntArray, KvRows, KvShape, Queries


def write_frame(  # noqa: PLR0917 - spelt out
    member: Member,
    layer: int,
    rows: KvRows,
    queries: Queries,
    rotary: Rotary,
    scorer: RowScorer | None = None,
    withheld: Collection[int] = (),
) -> bytes:
    """The frame of one layer: the rows that `member.compression` keeps, encoded.

    Args:
        member: whose rows these are.
        layer: zero-based.
        rows: all computed rows of its span, keys after RoPE, at its computed positions.
        queries: fetches those of the same tokens; only rows that are refitted need them.
        rotary: of the block.
        scorer: for the selector `learned`.
        withheld: tokens of the span, counted from its first, whose rows never travel.

    Raises:
        InvalidRequestError: a value does not fit the codec.
        PolicyRefusedError: fewer rows may travel than the session has laid out.
        InternalError: there is no scorer, and rows are to be chosen by it.
    """
    compression, counts = member.compression, member.head_counts(layer, len(rows.keys))
    held_back = places_of(rows, member, withheld)
    if min(counts) == rows.num_rows and not withheld:
        kept = HeadRows.of(rows)
    else:
        scores = _scores(member, layer, rows, rotary, scorer)
        kept = select_rows(
            rows, scores, counts, keep_ends=compression.keep_ends, withheld=held_back
        )
    if compression.is_refitted and min(counts) < len(member.span):  # as `FrameSpec.biases_size`
        free = np.delete(np.arange(rows.num_rows), held_back)
        kept = refit_rows(kept, rows, free, behind_span(queries(), rotary))
    return encode_frame(kept, layer, compression.codec, member.computed_span, rotary)


def _scores(
    member: Member, layer: int, rows: KvRows, rotary: Rotary, scorer: RowScorer | None
) -> FloatArray:
    """Of each row for each head, [Hkv, T]."""
    compression = member.compression
    if compression.selector != LEARNED:
        random = np.random.default_rng([compression.seed, member.computed_span.start, layer])
        return token_scores(rows, compression.selector, random)
    if scorer is None:
        raise InternalError(
            f"{member.node_id} is to choose rows by scores of the model, and has none; it must say "
            f"so before a session is laid out"
        )
    return scorer.scores(layer, rotary.undo(rows.keys, rows.positions), rows.values)


def places_of(rows: KvRows, member: Member, tokens: Collection[int]) -> IntArray:
    """Indices of the rows of some tokens of the span; tokens that were not computed have none."""
    if not tokens:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(np.isin(rows.positions - member.computed_span.start, list(tokens)))


def frame_spec(member: Member, shape: KvShape, layer: int) -> FrameSpec:
    """What the frame of a member at a layer must look like."""
    return FrameSpec(
        sender=member.node_id,
        shape=shape,
        codec=member.compression.codec,
        span=member.computed_span,
        counts=member.head_counts(layer, shape.num_kv_heads),
        is_refitted=member.compression.is_refitted,
        is_sealed=member.is_sealed,
    )


def read_frame(
    frame: ReceivedFrame, member: Member, shape: KvShape, rotary: Rotary | None = None
) -> HeadRows:
    """The rows of a checked frame: keys after RoPE, positions where they were computed.

    Raises:
        CorruptFrameError: positions or values are wrong.
    """
    return decode_body(frame, frame_spec(member, shape, frame.header.layer), rotary)


def place_rows(rows: HeadRows, member: Member, rotary: Rotary) -> HeadRows:
    """Decoded rows of a member where its span is in this session."""
    if member.position_offset == 0:
        return rows
    return replace(
        rows,
        keys=rotary.apply(rows.keys, np.array([member.position_offset])),
        positions=rows.positions + member.position_offset,
    )


def max_upload_size(member: Member, shape: KvShape, layer: int) -> int:
    """Bytes that a member's frame of a layer never exceeds; exact for a codec of fixed size."""
    return max_frame_size(frame_spec(member, shape, layer))
