"""Rows of one block with room for the answer, so that a token is added without copying the rest."""

from itertools import accumulate
from typing import Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention

from fedattn.model.layer_cache import LayerCache
from fedattn.model.positions import seen_from


class RoomyRows(Protocol):
    """What one token after the other sees at one block."""

    def attend(self, queries: torch.Tensor, row: torch.Tensor, scaling: float) -> torch.Tensor:
        """Add one row to each head, and see what its token makes of all rows.

        Args:
            queries: [Hkv, Hq / Hkv, D] float32 after RoPE.
            row: [2, Hkv, D] float32, keys after RoPE and values.
            scaling: factor on the scores.

        Returns:
            Of the shape of the queries.
        """


_MOST_PADDING = 1 << 20
"""Bytes of a block that filling heads up to one length may cost an answer."""


class _Sliding:
    """Which rows have left the window, one step after the other.

    Args:
        window: positions that a token sees, its own included.
        position: of the first token.
        positions: of the rows, of any shape; whatever takes no part is nowhere.
    """

    def __init__(self, window: int, position: int, positions: torch.Tensor) -> None:
        self._hidden_until = position - window
        self._positions = positions

    def step(self, biases: torch.Tensor, num_rows: int | None = None) -> torch.Tensor:
        """Biases on the scores of rows for the next token, -inf for those it does not see."""
        hidden = self._positions[..., :num_rows] <= self._hidden_until
        self._hidden_until += 1
        return biases.masked_fill(hidden, -torch.inf)


def with_room(rows: LayerCache, room: int, position: int, window: int | None) -> RoomyRows:
    """A copy of rows with room for so many more.

    All heads at once, if they see the same tokens or can be filled up to one length for little:
    what an operation costs by itself is then paid once a block and not once a head.

    Args:
        rows: of one block.
        room: tokens that may follow.
        position: of the first of them; they have one after the other.
        window: positions that a token sees, its own included; None for all earlier ones.
    """
    if window is not None:
        first = seen_from(position, window)
        rows = rows.where(lambda positions: positions >= first)
    heads = rows.groups()
    counts = [len(head.positions) for head in heads]
    padding = len(counts) * max(counts) - sum(counts)
    if 2 * padding * rows.keys.shape[-1] * torch.float32.itemsize > _MOST_PADDING:
        return _OwnRows(heads, room, position, window)
    return _EvenRows(heads, room, position, window)


class _EvenRows:
    """All heads have as many rows: keys and values [2, 1, Hkv, S + room, D], last ones newest.

    Where they do not, biases [1, Hkv, 1, S + room] hide what fills them up in front; and where the
    block has a window, what has left it.

    Example, 2 heads of 3 and 1 rows, room for 2:  a a a . .
                                                   - - b . .
    """

    def __init__(
        self, heads: list[LayerCache], room: int, position: int, window: int | None
    ) -> None:
        self._num_rows = max(len(head.positions) for head in heads)
        num_heads, size = sum(head.keys.shape[1] for head in heads), heads[0].keys.shape[-1]
        self._rows = torch.zeros(2, 1, num_heads, self._num_rows + room, size)
        for head, into in zip(heads, self._rows.chunk(len(heads), dim=2), strict=True):
            first = self._num_rows - len(head.positions)
            into[0, :, :, first : self._num_rows] = head.keys
            into[1, :, :, first : self._num_rows] = head.values
        is_even = window is None and all(head.biases is None for head in heads)
        self._biases = None if is_even else self._biases_of(heads, room)
        self._sliding = None
        if window is not None:
            self._sliding = _Sliding(window, position, self._positions_of(heads, room, position))

    def _biases_of(self, heads: list[LayerCache], room: int) -> torch.Tensor:
        biases = torch.zeros(1, len(heads), 1, self._num_rows + room)
        for head, of_head in zip(heads, biases[0, :, 0], strict=True):
            first = self._num_rows - len(head.positions)
            of_head[:first] = -torch.inf
            if head.biases is not None:
                of_head[first : self._num_rows] = head.biases
        return biases

    def _positions_of(self, heads: list[LayerCache], room: int, position: int) -> torch.Tensor:
        """[1, H, 1, S + room] int64, one head if all see the same tokens."""
        positions = torch.arange(position - self._num_rows, position + room)
        positions = positions.repeat(1, len(heads), 1, 1)
        for head, of_head in zip(heads, positions[0, :, 0], strict=True):
            first = self._num_rows - len(head.positions)
            of_head[first : self._num_rows] = head.positions
        return positions

    def attend(self, queries: torch.Tensor, row: torch.Tensor, scaling: float) -> torch.Tensor:
        self._rows[:, 0, :, self._num_rows] = row
        self._num_rows += 1
        keys, values = self._rows[:, :, :, : self._num_rows].unbind()
        biases = None if self._biases is None else self._biases[..., : self._num_rows]
        if self._sliding is not None and biases is not None:
            biases = self._sliding.step(biases, self._num_rows)
        return scaled_dot_product_attention(queries[None], keys, values, biases, scale=scaling)[0]


class _OwnRows:
    """Every head sees tokens of its own, head after head.

    Keys and values are [2, N + Hkv room, D], biases on the scores [N + Hkv room].

    Example, 2 heads of 3 and 1 rows, room for 2:  a a a . . | b . .
    """

    def __init__(
        self, heads: list[LayerCache], room: int, position: int, window: int | None
    ) -> None:
        counts = [len(head.positions) for head in heads]
        *self._starts, size = accumulate((count + room for count in counts), initial=0)
        self._stops = [start + count for start, count in zip(self._starts, counts, strict=True)]
        self._next = torch.tensor(self._stops)
        self._rows = torch.empty(2, size, heads[0].keys.shape[-1])
        self._biases, positions = torch.zeros(size), torch.empty(size, dtype=torch.int64)
        for head, start, stop in zip(heads, self._starts, self._stops, strict=True):
            self._rows[0, start:stop] = head.keys[0, 0]
            self._rows[1, start:stop] = head.values[0, 0]
            self._biases[start:stop] = head.biases if head.biases is not None else 0
            positions[start:stop] = head.positions
            positions[stop : stop + room] = torch.arange(position, position + room)
        self._sliding = None if window is None else _Sliding(window, position, positions)

    def attend(self, queries: torch.Tensor, row: torch.Tensor, scaling: float) -> torch.Tensor:
        self._rows.index_copy_(1, self._next, row)
        self._next += 1
        self._stops = [stop + 1 for stop in self._stops]
        seen = []
        places = zip((queries * scaling).unbind(), self._starts, self._stops, strict=True)
        all_keys, all_values = self._rows.unbind()
        all_biases = self._biases if self._sliding is None else self._sliding.step(self._biases)
        for of_head, start, stop in places:
            keys, biases = all_keys[start:stop], all_biases[start:stop]
            weights = torch.softmax(torch.addmm(biases, of_head, keys.t()), dim=-1)
            seen.append(torch.mm(weights, all_values[start:stop]))
        return torch.stack(seen)
