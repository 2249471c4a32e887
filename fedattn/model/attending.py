"""Attention of a span's queries to rows in token order, a piece of the queries at a time.

A mask of all T queries and S rows takes memory with the square of a prompt's length. A piece needs
one of its own queries and of the rows up to its last one: memory grows with S, and rows that come
after a piece are not multiplied at all.

Example, pieces of 2, prefix at 0 and 1, own tokens at 4 to 7, a received row at 3:

    queries 4 5     rows 0 1 3 4 5          mask [2, 5]
    queries 6 7     rows 0 1 3 4 5 6 7      mask [2, 7]

A few queries are a piece each: what a token becomes then is the same to the bit, whatever number of
tokens run with it. Sums in another order would be enough for weights in blocks, which round, to
move logits as far as rounding itself does.
"""

import torch

from fedattn.core.asked import UNSEEN
from fedattn.core.costs import QUERIES_AT_ONCE
from fedattn.model.attention import score_factor, sdpa
from fedattn.model.layer_cache import LayerCache
from fedattn.model.positions import seen_from, visible

_SCORES_AT_ONCE = 64
"""Queries whose scores are in memory together, [Hq, 64, S]."""
ALONE = 9
"""Up to so many queries of one pass of decoding attend one by one."""


def attend_rows(  # noqa: PLR0913 - spelt out
    query: torch.Tensor,
    rows: LayerCache,
    positions: torch.Tensor,
    window: int | None,
    scaling: float | None,
    *,
    alone: bool = False,
) -> torch.Tensor:
    """What queries make of the rows up to their own positions.

    Args:
        query: [1, Hq, T, D] after RoPE.
        rows: of one block; the last T are those of the queries, and none of the others is later.
        positions: [T] int64 of the queries, increasing.
        window: positions that a query sees, its own included; None for all earlier ones.
        scaling: factor on the scores, None for 1 / sqrt(D).
        alone: whether up to 9 queries attend one by one, so that what one makes does not depend,
            to the bit, on how many there are.

    Returns:
        [1, Hq, T, D].
    """
    groups = rows.groups()
    parts = zip(query.chunk(len(groups), dim=1), groups, strict=True)
    most = 1 if alone and query.shape[2] <= ALONE else QUERIES_AT_ONCE
    outputs = [
        _in_pieces(queries, group, positions, window, scaling, most) for queries, group in parts
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def attend_partly(
    query: torch.Tensor,
    rows: LayerCache,
    positions: torch.Tensor,
    window: int | None,
    scaling: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `attend_rows` for some of the rows that the queries see, to be merged with the others.

    The rows are in token order; there may be none that a query sees. Up to 9 queries attend one by
    one, as in `attend_rows` if it is told to.

    Returns:
        [1, Hq, T, D] float32, and the logarithm of the sum of the exponentials of the scores,
        [1, Hq, T] float32; UNSEEN, and 0 in the first, for a query that sees no row.
    """
    groups = rows.groups()
    parts = zip(query.chunk(len(groups), dim=1), groups, strict=True)
    factor = score_factor(query, scaling)
    outputs, lses = [], []
    for queries, group in parts:
        pieces = [
            _attend_partly(queries[0, :, some].float() * factor, group, positions[some], window)
            for some in _pieces(query.shape[2], 1 if query.shape[2] <= ALONE else _SCORES_AT_ONCE)
        ]
        outputs.append(torch.cat([output for output, _ in pieces], dim=1))
        lses.append(torch.cat([lse for _, lse in pieces], dim=1))
    return torch.cat(outputs)[None], torch.cat(lses)[None]


def _pieces(num_queries: int, size: int) -> list[slice]:
    """Queries that attend together."""
    return [slice(start, min(start + size, num_queries)) for start in range(0, num_queries, size)]


def _attend_partly(
    query: torch.Tensor, rows: LayerCache, positions: torch.Tensor, window: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of scaled queries [Hq, T, D] to rows: output [Hq, T, D] and lse [Hq, T]."""
    rows = rows.before(int(positions[-1]) + 1)
    keys, values = rows.keys[0].float(), rows.values[0].float()
    heads, num_queries, size = query.shape
    grouped = query.reshape(keys.shape[0], -1, size)  # heads that share a key/value head
    scores = torch.bmm(grouped, keys.transpose(1, 2)).view(heads, num_queries, -1)
    if rows.biases is not None:
        scores += rows.biases.float()
    scores = scores.masked_fill(~visible(positions, rows.positions, window), -torch.inf)
    lse = torch.logsumexp(scores, dim=-1).clamp_min(float(UNSEEN))
    weights = torch.exp(scores - lse[..., None]).view(keys.shape[0], -1, keys.shape[1])
    return torch.bmm(weights, values).view(heads, num_queries, size), lse


def _in_pieces(  # noqa: PLR0913, PLR0917 - spelt out
    query: torch.Tensor,
    rows: LayerCache,
    positions: torch.Tensor,
    window: int | None,
    scaling: float | None,
    most: int,
) -> torch.Tensor:
    """Of the query heads that see these rows, so many queries at a time."""
    num_queries = query.shape[2]
    pieces = _pieces(num_queries, most)
    if len(pieces) == 1:
        return _attend(query, rows, positions, window, scaling)
    output = torch.empty_like(query)
    for here in pieces:
        seen = rows.without_last(num_queries - here.stop)
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
