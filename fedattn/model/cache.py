"""The KV cache of one participant, whose layers exchange rows as the blocks run."""

from typing import Any

import numpy as np
import torch

from fedattn.core.types import FloatArray, IntArray, KvRows
from fedattn.model.attention import sdpa
from fedattn.model.exchange import KvExchange


class LastUploadDone(Exception):  # noqa: N818 - control flow, not an error
    """Ends a contributor's forward pass once nothing more of it can reach anybody."""


class LayerCache:
    """Rows of one block: keys after RoPE and their global positions, in token order.

    Worked example, prefix of 2 tokens, own span [4, 6):

        seeded                          positions 0 1
        append, this block receives     positions 0 1 | 2 3 | 4 5     2 and 3 came from others
        append, this block is local     positions 0 1 | 4 5
        append, a decoded token         positions ... 6
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, positions: torch.Tensor) -> None:
        self.keys, self.values, self.positions = keys, values, positions

    def select(self, chosen: torch.Tensor) -> "LayerCache":
        """The rows at indices, or of a boolean mask."""
        return LayerCache(
            self.keys[:, :, chosen], self.values[:, :, chosen], self.positions[chosen]
        )

    def without_last(self, num_rows: int) -> "LayerCache":
        stop = self.positions.shape[0] - num_rows
        return LayerCache(self.keys[:, :, :stop], self.values[:, :, :stop], self.positions[:stop])

    def before(self, position: int) -> "LayerCache":
        """The rows before a global position; views of the same memory."""
        return self.without_last(int((self.positions >= position).sum()))


class FederatedCache:
    """Rows of all blocks: a `KvView` that trades rows on the first forward pass.

    Args:
        num_layers: blocks of the model.
        device: where the model computes.
        exchange: trades the rows of the first forward pass; None for no exchange at all.
        keeps_rows: False for a participant that will not decode, which saves the memory.
    """

    def __init__(
        self,
        num_layers: int,
        device: torch.device,
        *,
        exchange: KvExchange | None = None,
        keeps_rows: bool = True,
    ) -> None:
        self._device = device
        self._exchange = exchange
        self._keeps_rows = keeps_rows
        self._kept: list[list[LayerCache]] = [[] for _ in range(num_layers)]
        self.query_positions = torch.empty(0, dtype=torch.int64, device=device)

    def seed(self, layers: list[LayerCache]) -> None:
        """Start from rows of every block; they may be shared, and are never written."""
        self._kept = [[layer] for layer in layers]

    @property
    def layers(self) -> list[LayerCache]:
        """Rows of every block, once a forward pass has filled them."""
        return [layer for kept in self._kept for layer in kept]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        """As `KvView.attend`, for one sequence; the rows are kept for later passes.

        Raises:
            LastUploadDone: the owner has just sent its last layer, and will not decode.
        """
        own = LayerCache(key, value, self.query_positions)
        rows = join_rows([*self._kept[layer], *self._trade(layer, query, own), own])
        if self._keeps_rows:
            self._kept[layer] = [rows]
        mask = None  # a single query sees every key
        if query.shape[2] > 1:
            mask = (rows.positions[None, :] <= self.query_positions[:, None])[None, None]
        return sdpa(query, rows.keys, rows.values, mask, scaling)

    def end_exchange(self) -> None:
        """Only the span itself is traded; what follows is decoded alone."""
        self._exchange = None

    def rows_before(self, num_rows: int) -> list[LayerCache]:
        """Rows of every block without the newest so many; views of the same memory."""
        return [layer.without_last(num_rows) for layer in self.layers]

    def drop_last(self, num_rows: int) -> None:
        """Forget the newest rows of every block, as if they had never been decoded."""
        self.seed(self.rows_before(num_rows))

    def _trade(self, layer: int, query: torch.Tensor, own: LayerCache) -> list[LayerCache]:
        """Send own rows and return those of the others, if any come here."""
        if self._exchange is None:
            return []
        route = self._exchange.route
        if layer in route.uploads:
            self._exchange.send(layer, self._own_rows(own), lambda: _to_numpy(query))
        if layer == route.last_upload and not self._keeps_rows:
            raise LastUploadDone
        if layer not in route.receives:
            return []
        return [self._part(rows, own.keys.dtype) for rows in self._exchange.receive(layer)]

    def _part(self, rows: KvRows, dtype: torch.dtype) -> LayerCache:
        """Received rows where the model computes; where that is here, they are not copied."""
        keys, values, positions = (
            torch.from_numpy(np.require(array, requirements="W"))
            for array in (rows.keys, rows.values, rows.positions)
        )
        return LayerCache(
            keys.to(self._device, dtype)[None],
            values.to(self._device, dtype)[None],
            positions.to(self._device),
        )

    def _own_rows(self, own: LayerCache) -> KvRows:
        return KvRows(
            keys=_to_numpy(own.keys),
            values=_to_numpy(own.values),
            positions=_positions_to_numpy(own.positions),
        )


def join_rows(parts: list[LayerCache]) -> LayerCache:
    """Rows of all parts, one after the other."""
    return LayerCache(
        torch.cat([part.keys for part in parts], dim=2),
        torch.cat([part.values for part in parts], dim=2),
        torch.cat([part.positions for part in parts]),
    )


def _to_numpy(rows: torch.Tensor) -> FloatArray:
    """[1, H, T, D] of any dtype to [H, T, D] float32."""
    array: Any = rows[0].to(device="cpu", dtype=torch.float32).numpy()
    return array  # type: ignore[no-any-return]


def _positions_to_numpy(positions: torch.Tensor) -> IntArray:
    return positions.cpu().numpy().astype(np.int64, copy=False)
