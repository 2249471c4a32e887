"""The KV cache of one participant, whose layers exchange rows as transformers updates them."""

from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from fedattn.core.types import KvRows
from fedattn.model.exchange import KvExchange


class LastUploadDone(Exception):  # noqa: N818 - control flow, not an error
    """Ends a contributor's forward pass once nothing more of it can reach anybody."""


class FederatedLayer(CacheLayerMixin):  # type: ignore[misc]
    """Cache of one block: keys after RoPE and their global positions, in token order.

    The first `update` brings the own span and runs the exchange; later ones only append decoded
    tokens. Worked example, prefix of 2 tokens, own span [4, 6):

        seeded                          positions 0 1
        update, this block receives     positions 0 1 | 2 3 | 4 5     2 and 3 came from others
        update, this block is local     positions 0 1 | 4 5
        update, a decoded token         positions ... 6
    """

    def __init__(self, layer: int, owner: "FederatedCache") -> None:
        super().__init__()
        self._layer = layer
        self._owner = owner
        self._exchange = owner.exchange
        self.positions = torch.empty(0, dtype=torch.int64, device=owner.device)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.seed(key_states[:, :, :0], value_states[:, :, :0])

    def seed(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Start from rows at positions 0, 1, ...; they may be shared, and are never written."""
        self.keys, self.values = keys, values
        self.positions = torch.arange(keys.shape[2], device=self._owner.device)
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the running forward's rows, [1, Hkv, T, D], and return the visible [1, Hkv, S, D].

        Raises:
            LastUploadDone: the owner is a contributor and has just sent its last layer.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        received = self._trade(key_states, value_states)
        old_keys, old_values = self.rows()
        keys = torch.cat([old_keys, *received[:1], key_states], dim=2)
        values = torch.cat([old_values, *received[1:2], value_states], dim=2)
        self.positions = torch.cat([self.positions, *received[2:], self._owner.query_positions])
        if self._owner.keeps_rows:
            self.keys, self.values = keys, values
        return keys, values

    def _trade(self, key_states: torch.Tensor, value_states: torch.Tensor) -> list[torch.Tensor]:
        """Send own rows and return [keys, values, positions] of the others', or nothing."""
        exchange, self._exchange = self._exchange, None  # only the span itself is traded
        if exchange is None:
            return []
        route = exchange.route
        if self._layer in route.uploads:
            exchange.send(self._layer, self._own_rows(key_states, value_states))
        if self._layer == route.last_upload:
            raise LastUploadDone
        if self._layer not in route.receives:
            return []
        rows = exchange.receive(self._layer)
        dtype, device = key_states.dtype, key_states.device
        return [
            torch.tensor(rows.keys, dtype=dtype, device=device)[None],
            torch.tensor(rows.values, dtype=dtype, device=device)[None],
            torch.tensor(rows.positions, device=device),
        ]

    def _own_rows(self, key_states: torch.Tensor, value_states: torch.Tensor) -> KvRows:
        def to_numpy(rows: torch.Tensor) -> Any:
            return rows[0].to(device="cpu", dtype=torch.float32).numpy()

        positions = self._owner.query_positions.cpu().numpy().astype(np.int64, copy=False)
        return KvRows(keys=to_numpy(key_states), values=to_numpy(value_states), positions=positions)

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, [1, Hkv, S, D] each."""
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def drop_last(self, num_rows: int) -> None:
        """Forget the newest rows, as if they had never been decoded."""
        stop = self.positions.shape[0] - num_rows
        keys, values = self.rows()
        self.keys, self.values = keys[:, :, :stop], values[:, :, :stop]
        self.positions = self.positions[:stop]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return int(self.positions.shape[0])

    def get_max_length(self) -> int:
        return -1


class FederatedCache(Cache):  # type: ignore[misc]
    """Cache of all blocks, and the source of each block's mask.

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
        self.device = device
        self.exchange = exchange
        self.keeps_rows = keeps_rows
        self.query_positions = torch.empty(0, dtype=torch.int64, device=device)
        self.federated = [FederatedLayer(layer, self) for layer in range(num_layers)]
        super().__init__(layers=list(self.federated))

    def layer_mask(self, layer: int, num_queries: int) -> torch.Tensor | None:
        """Every cached key is visible up to the query's own global position.

        Returns:
            [1, 1, T, S] bool, or None for a single query, which sees every key.
        """
        if num_queries == 1:
            return None
        keys = self.federated[layer].positions
        return (keys[None, :] <= self.query_positions[:, None])[None, None]

    def drop_last(self, num_rows: int) -> None:
        """Forget the newest rows of every block."""
        for layer in self.federated:
            layer.drop_last(num_rows)
