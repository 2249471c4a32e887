"""Attention of a span's queries to rows in token order, a piece of the queries at a time.

A mask of all T queries and S rows takes memory with the square of a prompt's length. A piece needs
one of its own queries and of the rows up to its last one: memory grows with S, and rows that come
after a piece are not multiplied at all.

Example, pieces of 2, prefix at 0 and 1, own tokens at 4 to 7, a received row at 3:

    queries 4 5     rows 0 1 3 4 5          mask [2, 5]
    queries 6 7     rows 0 1 3 4 5 6 7      mask [2, 7]
"""

import torch

from fedattn.core.costs import QUERIES_AT_ONCE
from fedattn.model.attention import sdpa
from fedattn.model.layer_cache import LayerCache
from fedattn.model.positions import seen_from, visible


def attend_rows(
    query: torch.Tensor,
    rows: LayerCache,
    positions: torch.Tensor,
    window: int | None,
    scaling: float | None,
) -> torch.Tensor:
    """What queries make of the rows up to their own positions.

    Args:
        query: [1, Hq, T, D] after RoPE.
        rows: of one block; the last T are those of the queries, and none of the others is later.
        positions: [T] int64 of the queries, increasing.
        window: positions that a query sees, its own included; None for all earlier ones.
        scaling: factor on the scores, None for 1 / sqrt(D).

    Returns:
        [1, Hq, T, D].
    """
    groups = rows.groups()
    parts = zip(query.chunk(len(groups), dim=1), groups, strict=True)
    outputs = [_in_pieces(queries, group, positions, window, scaling) for queries, group in parts]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def _in_pieces(
    query: torch.Tensor,
    rows: LayerCache,
    positions: torch.Tensor,
    window: int | None,
    scaling: float | None,
) -> torch.Tensor:
    """Of the query heads that see these rows."""
    num_queries = query.shape[2]
    if num_queries <= QUERIES_AT_ONCE:
        return _attend(query, rows, positions, window, scaling)
    output = torch.empty_like(query)
    for start in range(0, num_queries, QUERIES_AT_ONCE):
        here = slice(start, start + QUERIES_AT_ONCE)
        seen = rows.without_last(max(0, num_queries - here.stop))
        output[:, :, here] = _attend(query[:, :, here], seen, positions[here], window, scaling)
    return output


def _attend(
    query: torch.Tensor,
    rows: LayerCache,
    positions: torch.Tensor,
    window: int | None,
    scaling: float | None,
) -> torch.Tensor:
    if window is not None and rows.biases is None and len(rows.positions) > window:
        rows = rows.since(seen_from(int(positions[0]), window))
    mask = None  # a single query sees every row, unless there is a window
    if len(positions) > 1 or window is not None:
        mask = visible(positions, rows.positions, window)
        if rows.biases is not None:
            mask = torch.where(mask, rows.biases, -torch.inf)
        mask = mask[None, None]
    elif rows.biases is not None:
        mask = rows.biases[None, None, None]
    return sdpa(query, rows.keys, rows.values, mask, scaling)
