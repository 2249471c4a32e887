"""Which token sees which: the definition every faster path is tested against."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fedattn.core.spans import SessionLayout
from fedattn.core.types import IntArray

PREFIX_OWNER = -1
KeptPositions: TypeAlias = Mapping[tuple[int, int], tuple[IntArray, ...]]
"""Global positions that travelled, by (participant, layer), an array for each key/value head; where
nothing is said, all.
"""


def token_owners(
    layout: SessionLayout, num_generated: int = 0, responder: int | None = None
) -> npt.NDArray[np.int64]:
    """Owner of every global token.

    Args:
        layout: the session.
        num_generated: tokens decoded so far.
        responder: place of the participant they belong to; None for the publisher.

    Returns:
        [S] int64: place of the participant in token order, PREFIX_OWNER for the public prefix.
    """
    owners = np.full(layout.num_tokens + num_generated, PREFIX_OWNER, dtype=np.int64)
    for index, member in enumerate(layout.members):
        owners[member.span.start : member.span.stop] = index
    owners[layout.num_tokens :] = len(layout.members) - 1 if responder is None else responder
    return owners


def computed_positions(layout: SessionLayout, num_generated: int = 0) -> IntArray:
    """Global positions that take part: all but dropped input tokens, sorted."""
    inputs = [member.input_positions() for member in layout.members]
    generated = np.arange(layout.num_tokens, layout.num_tokens + num_generated)
    return np.concatenate([np.arange(layout.prefix_len), *inputs, generated])


def visibility_mask(
    layout: SessionLayout,
    layer: int,
    num_generated: int = 0,
    kept: KeptPositions | None = None,
    responder: int | None = None,
    *,
    head: int = 0,
) -> npt.NDArray[np.bool_]:
    """Mask of one layer and key/value head for the joined sequence.

    Query i of participant p sees key j if and only if j <= i and one of: p owns j; j is in the
    public prefix; p synchronises at this layer and j was kept by its owner there, for this head.
    Rows of an owner that is asked are seen by the publisher alone, where that owner answers.
    Dropped input tokens see nothing and are seen by nobody.

    Example: prefix 1 token, contributor 2 tokens, publisher 2 tokens, only the publisher syncs:

            key  0 1 2 3 4
        query 0  x
              1  x x
              2  x x x
              3  x x x x         with `none` instead: x . . x
              4  x x x x x                            x . . x x

    Args:
        layout: the session.
        layer: zero-based.
        num_generated: tokens decoded so far.
        kept: which rows travelled.
        responder: who owns the decoded tokens, as in `token_owners`; they synchronise where the
            publisher does, whoever that is.
        head: key/value head; masks differ only where `kept` says that they do.

    Returns:
        [S, S] bool, rows are queries.
    """
    owners = token_owners(layout, num_generated, responder)
    positions = np.arange(len(owners))
    causal = positions[None, :] <= positions[:, None]
    same_owner = owners[None, :] == owners[:, None]
    public = owners[None, :] == PREFIX_OWNER
    syncs = np.array([layer in member.plan for member in layout.members], dtype=np.bool_)
    owner_syncs = np.where(owners == PREFIX_OWNER, False, syncs[owners])
    owner_syncs[layout.num_tokens :] = layer in layout.publisher.plan
    travels = np.ones(len(owners), dtype=np.bool_)
    for (owner, at_layer), sent in (kept or {}).items():
        if at_layer == layer:
            travels[owners == owner] = False
            travels[sent[head]] = True
    takes_part = np.zeros(len(owners), dtype=np.bool_)
    takes_part[computed_positions(layout, num_generated)] = True
    received = owner_syncs[:, None] & travels[None, :]
    for index, member in enumerate(layout.contributors):
        if member.is_asked:
            asks = (owners == len(layout.members) - 1) & (layer in member.answers)
            received[:, owners == index] = asks[:, None] & travels[owners == index]
    mask: npt.NDArray[np.bool_] = causal & (same_owner | public | received)
    return mask & takes_part[:, None] & takes_part[None, :]
