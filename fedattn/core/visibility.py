"""Which token sees which: the definition every faster path is tested against."""

import numpy as np
import numpy.typing as npt

from fedattn.core.spans import SessionLayout

PREFIX_OWNER = -1


def token_owners(layout: SessionLayout, num_generated: int = 0) -> npt.NDArray[np.int64]:
    """Owner of every global token.

    Args:
        layout: the session.
        num_generated: tokens decoded so far; they belong to the publisher.

    Returns:
        [S] int64: place of the participant in token order, PREFIX_OWNER for the public prefix.
    """
    owners = np.full(layout.num_tokens + num_generated, PREFIX_OWNER, dtype=np.int64)
    for index, member in enumerate(layout.members):
        owners[member.span.start : member.span.stop] = index
    owners[layout.num_tokens :] = len(layout.members) - 1
    return owners


def visibility_mask(
    layout: SessionLayout, layer: int, num_generated: int = 0
) -> npt.NDArray[np.bool_]:
    """Mask of one layer for the joined sequence, with every row kept.

    Query i of participant p sees key j if and only if j <= i and one of: p owns j; j is in the
    public prefix; p synchronises at this layer.

    Example: prefix 1 token, contributor 2 tokens, publisher 2 tokens, only the publisher syncs:

            key  0 1 2 3 4
        query 0  x
              1  x x
              2  x x x
              3  x x x x         with `none` instead: x . . x
              4  x x x x x                            x . . x x

    Returns:
        [S, S] bool, rows are queries.
    """
    owners = token_owners(layout, num_generated)
    positions = np.arange(len(owners))
    causal = positions[None, :] <= positions[:, None]
    same_owner = owners[None, :] == owners[:, None]
    public = owners[None, :] == PREFIX_OWNER
    syncs = np.array([layer in member.plan for member in layout.members], dtype=np.bool_)
    owner_syncs = np.where(owners == PREFIX_OWNER, False, syncs[owners])
    mask: npt.NDArray[np.bool_] = causal & (same_owner | public | owner_syncs[:, None])
    return mask
