"""Which rows a query sees by position alone: those up to its own, within the block's window.

Example, window 3:

        row  0 1 2 3 4
    query 2  x x x
          4      x x x
"""

import torch


def visible(queries: torch.Tensor, rows: torch.Tensor, window: int | None) -> torch.Tensor:
    """[T, S] bool: which of the rows at positions [S] each query at [T] sees.

    Args:
        queries: [T] int64 global positions.
        rows: [S] int64 global positions.
        window: positions that a query sees, its own included; None for all earlier ones.
    """
    distances = queries[:, None] - rows[None, :]
    seen = distances >= 0
    return seen if window is None else seen & (distances < window)


def seen_from(query: int, window: int) -> int:
    """The first position that a query sees; none that is later sees any before it."""
    return query - window + 1
