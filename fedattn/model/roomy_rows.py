"""Rows of one block with room for the answer, so that a token is added without copying the rest."""

from itertools import accumulate
from typing import Protocol

import torch

from fedattn.model.layer_cache import LayerCache


class RoomyRows(Protocol):
    """What one token after the other sees at one block."""

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Add one row to each head.

        Args:
            keys: [Hkv, D] float32 after RoPE.
            values: [Hkv, D] float32.
        """

    def attend(self, queries: torch.Tensor, scaling: float) -> torch.Tensor:
        """What a token makes of all rows.

        Args:
            queries: [Hkv, Hq / Hkv, D] float32 after RoPE.
            scaling: factor on the scores.

        Returns:
            Of the shape of the queries.
        """


def with_room(rows: LayerCache, room: int) -> RoomyRows:
    """A copy of rows with room for so many more; all heads at once, where they see the same."""
    return _SameRows(rows, room) if rows.others is None else _OwnRows(rows.groups(), room)


class _SameRows:
    """All heads see the same tokens: keys and values [Hkv, S + room, D]."""

    def __init__(self, rows: LayerCache, room: int) -> None:
        heads, self._num_rows, size = rows.keys.shape[1:]
        self._keys = torch.empty(heads, self._num_rows + room, size)
        self._values = torch.empty_like(self._keys)
        self._keys[:, : self._num_rows] = rows.keys[0]
        self._values[:, : self._num_rows] = rows.values[0]

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self._keys[:, self._num_rows] = keys
        self._values[:, self._num_rows] = values
        self._num_rows += 1

    def attend(self, queries: torch.Tensor, scaling: float) -> torch.Tensor:
        scores = torch.bmm(queries, self._keys[:, : self._num_rows].transpose(1, 2))
        weights = torch.softmax(scores * scaling, dim=-1)
        return torch.bmm(weights, self._values[:, : self._num_rows])


class _OwnRows:
    """Every head sees tokens of its own, head after head.

    Keys and values are [N + Hkv room, D], biases on the scores [N + Hkv room].

    Example, 2 heads of 3 and 1 rows, room for 2:  a a a . . | b . .
    """

    def __init__(self, heads: list[LayerCache], room: int) -> None:
        counts = [len(head.positions) for head in heads]
        *self._starts, size = accumulate((count + room for count in counts), initial=0)
        self._stops = [start + count for start, count in zip(self._starts, counts, strict=True)]
        self._next = torch.tensor(self._stops)
        self._keys = torch.empty(size, heads[0].keys.shape[-1])
        self._values = torch.empty_like(self._keys)
        self._biases = torch.zeros(size)
        for head, start, stop in zip(heads, self._starts, self._stops, strict=True):
            self._keys[start:stop] = head.keys[0, 0]
            self._values[start:stop] = head.values[0, 0]
            self._biases[start:stop] = head.biases if head.biases is not None else 0

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self._keys.index_copy_(0, self._next, keys)
        self._values.index_copy_(0, self._next, values)
        self._next += 1
        self._stops = [stop + 1 for stop in self._stops]

    def attend(self, queries: torch.Tensor, scaling: float) -> torch.Tensor:
        seen = []
        places = zip((queries * scaling).unbind(), self._starts, self._stops, strict=True)
        for of_head, start, stop in places:
            keys, biases = self._keys[start:stop], self._biases[start:stop]
            weights = torch.softmax(torch.addmm(biases, of_head, keys.t()), dim=-1)
            seen.append(torch.mm(weights, self._values[start:stop]))
        return torch.stack(seen)
