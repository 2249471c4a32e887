"""The KV cache of one participant, whose layers exchange rows as the blocks run."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from fedattn.core.asked import PartialAttention
from fedattn.core.types import FloatArray, HeadRows, IntArray, KvRows
from fedattn.model.asked import merge_parts
from fedattn.model.attending import attend_partly, attend_rows
from fedattn.model.attention import score_factor
from fedattn.model.exchange import AskingExchange, KvExchange
from fedattn.model.head_rows import RaggedRows, as_dense
from fedattn.model.layer_cache import LayerCache, join_rows
from fedattn.model.recalled import Recollection


class LastUploadDone(Exception):  # noqa: N818 - control flow, not an error
    """Ends a contributor's forward pass once nothing more of it can reach anybody."""


class FederatedCache:
    """Rows of all blocks: a `KvView` that trades rows on the first forward pass.

    Args:
        windows: of every block, as `KvView` has them.
        device: where the model computes.
        exchange: trades the rows of the first forward pass, and asks others in every one; None for
            no exchange at all.
        keeps_rows: False for a participant that will not decode, which saves the memory.

    Attributes:
        windows: of every block.
        query_positions: [T] int64 of the tokens of the running forward pass.
        last_queries: of every block, the last query of the newest forward pass, scaled
            [1, Hq, 1, D]; empty before it gets there.
        attends_alone: whether a few queries attend one by one, as `attend_rows` has it.
        between_blocks: makes what each block's exchange happens in, where a prefill gives way.
    """

    def __init__(
        self,
        windows: Sequence[int | None],
        device: torch.device,
        *,
        exchange: KvExchange | None = None,
        keeps_rows: bool = True,
    ) -> None:
        self.windows = windows
        self._device = device
        self._exchange = exchange
        self._is_trading = self._is_asking = True
        self._is_recalling = False
        self._recalled: dict[int, Recollection] = {}
        self._keeps_rows = keeps_rows
        self._kept: list[list[LayerCache]] = [[] for _ in windows]
        self.query_positions = torch.empty(0, dtype=torch.int64, device=device)
        self.last_queries = [torch.empty(0, device=device)] * len(windows)
        self.attends_alone = False
        self.between_blocks: Callable[[], AbstractContextManager[None]] = nullcontext

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
        asked = self._asked_at(layer)
        factor = score_factor(query, scaling)
        if asked is not None:
            asked.ask(layer, _to_numpy(query * factor), int(self.query_positions[0]))
        with self.between_blocks():
            received = self._trade(layer, own, query, scaling)
        rows = join_rows([*self._kept[layer], *received, own])
        if self._keeps_rows:
            self._kept[layer] = [rows]
            self.last_queries[layer] = query[:, :, -1:] * factor
        positions, window = self.query_positions, self.windows[layer]
        if asked is None and not (self._is_recalling and layer in self._recalled):
            alone = self.attends_alone
            return attend_rows(query, rows, positions, window, scaling, alone=alone)
        output, lse = attend_partly(query, rows, positions, window, scaling)
        parts = self._parts(layer, asked, _to_numpy(query * factor))
        return merge_parts(output, lse, parts).to(query.dtype)

    def end_exchange(self) -> None:
        """Only rows of the span itself are traded; later tokens are asked for all the same."""
        self._is_trading = False

    @contextmanager
    def without_asking(self) -> Iterator[None]:
        """Passes within it see the rows that are here, and no others."""
        self._is_asking = False
        try:
            yield
        finally:
            self._is_asking = True

    @contextmanager
    def recalling(self) -> Iterator[None]:
        """As `without_asking`, but to each token others say again what they made of one like it.

        For tokens that are only guessed.
        """
        self._is_recalling = True
        try:
            with self.without_asking():
                yield
        finally:
            self._is_recalling = False

    @property
    def asks_others(self) -> bool:
        """Whether its passes see rows that are elsewhere: then no decoder of own rows will do."""
        return self._exchange is not None and bool(self._exchange.route.asks)

    def rows_before(self, num_rows: int) -> list[LayerCache]:
        """Rows of every block without the newest so many; views of the same memory."""
        return [layer.without_last(num_rows) for layer in self.layers]

    def drop_last(self, num_rows: int) -> None:
        """Forget the newest rows of every block, as if they had never been decoded."""
        self.seed(self.rows_before(num_rows))

    def _asked_at(self, layer: int) -> AskingExchange | None:
        """Where the queries of this pass go, if others answer them."""
        exchange = self._exchange if self._is_asking else None
        if exchange is None or layer not in exchange.route.asks:
            return None
        assert isinstance(exchange, AskingExchange)
        return exchange

    def _parts(
        self, layer: int, asked: AskingExchange | None, queries: FloatArray
    ) -> Collection[PartialAttention]:
        """What others make of queries that they were asked, or are likely to if they were not."""
        if asked is None:
            return [self._recalled[layer].like(queries)]
        with self.between_blocks():
            parts = asked.parts(layer).values()
        if parts:
            self._recalled.setdefault(layer, Recollection()).add(queries, parts)
        return parts

    def _trade(
        self, layer: int, own: LayerCache, query: torch.Tensor, scaling: float | None
    ) -> list[LayerCache]:
        """Send own rows and return those of the others, if any come here."""
        if self._exchange is None or not self._is_trading:
            return []
        route = self._exchange.route
        if layer in route.needed:
            factor = score_factor(query, scaling)
            self._exchange.send(layer, self._own_rows(own), lambda: _to_numpy(query * factor))
        if layer == route.last_needed and not self._keeps_rows:
            raise LastUploadDone
        if layer not in route.receives:
            return []
        return self._received(self._exchange.receive(layer), own)

    def _received(self, parts: list[HeadRows], own: LayerCache) -> list[LayerCache]:
        """Received rows where the model computes, a part each if all heads have the same ones."""
        dense = [as_dense(part) for part in parts]
        same = [part for part in dense if part is not None]
        if len(same) == len(parts):
            return [self._part(rows, own.keys.dtype) for rows in same]
        others = RaggedRows.join(parts, self._device, own.keys.dtype)
        return [LayerCache(own.keys[:, :, :0], own.values[:, :, :0], own.positions[:0], others)]

    def _part(self, rows: KvRows, dtype: torch.dtype) -> LayerCache:
        """Where the model computes here, they are not copied."""
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


def _to_numpy(rows: torch.Tensor) -> FloatArray:
    """[1, H, T, D] of any dtype to [H, T, D] float32."""
    array: Any = rows[0].to(device="cpu", dtype=torch.float32).numpy()
    return array  # type: ignore[no-any-return]


def _positions_to_numpy(positions: torch.Tensor) -> IntArray:
    return positions.cpu().numpy().astype(np.int64, copy=False)
