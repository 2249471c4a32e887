"""Rows that a codec could have written as they were received, and rows that it could not."""

from dataclasses import dataclass

import numpy as np
import torch

from fedattn.core.codecs import Codec
from fedattn.core.types import FloatArray, IntArray, KvRows
from fedattn.model.cache import FederatedCache
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import forward_tokens
from fedattn.research.leak.received import Received

_NOISE = 1e-5
"""What arithmetic in another order may change, as a share of a row's root mean square."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoundedRow:
    """One row as received, where its codec rounds: keys before or after RoPE.

    Attributes:
        row: [2, Hkv, D] float32, K and V.
        slack: [2, Hkv, D] float32, how far each scalar may be from the one that was encoded.
    """

    row: FloatArray
    slack: FloatArray

    def share_impossible(self, computed: torch.Tensor) -> torch.Tensor:
        """Share of the scalars that cannot have come of each candidate's, [C] float32.

        Args:
            computed: [2, Hkv, C, D] float32, as `to_rounded` gives it.
        """
        device = computed.device
        row, slack = (torch.from_numpy(array).to(device) for array in (self.row, self.slack))
        impossible = (computed - row[:, :, None]).abs() > slack[:, :, None]
        return impossible.float().mean(dim=(0, 1, 3))


def to_rounded(
    model: LoadedModel, codec: Codec, computed: torch.Tensor, position: int
) -> torch.Tensor:
    """Computed rows of one position, [2, Hkv, C, D] with keys after RoPE, where a codec rounds."""
    if not codec.keys_before_rope:
        return computed
    keys = computed[0].cpu().numpy()
    undone = model.rotary.undo(keys, np.full(keys.shape[1], position))
    return torch.stack([torch.from_numpy(undone).to(computed.device), computed[1]])


def rounded_rows(
    model: LoadedModel, received: Received, layer: int, positions: range
) -> dict[int, RoundedRow]:
    """The rows of a block that were received at some positions, by position.

    How a frame was rounded stands in it: its scales, and for floats their exponents. Here the
    same bounds are worked out from the text, which tells the attacker nothing more.
    """
    rows, codec = received.rows[layer], received.codec
    given = _where_rounded(model, codec, rows)
    encoded = _where_rounded(model, codec, _true_rows(model, received, layer, rows.positions))
    bounds = codec.error_bound(encoded[0], encoded[1])
    slack = np.stack([np.broadcast_to(bound, given[0].shape) for bound in bounds])
    size = np.sqrt(np.square(given).mean(axis=-1, keepdims=True))
    slack = (slack + np.float32(_NOISE) * size).astype(np.float32)
    return {
        position: RoundedRow(row=given[:, :, place].copy(), slack=slack[:, :, place].copy())
        for place, position in enumerate(rows.positions.tolist())
        if position in positions
    }


def _where_rounded(model: LoadedModel, codec: Codec, rows: KvRows) -> FloatArray:
    """[2, Hkv, T, D] of rows after RoPE."""
    keys = rows.keys
    if codec.keys_before_rope:
        keys = model.rotary.undo(keys, rows.positions)
    return np.stack([keys, rows.values])


@torch.inference_mode()
def _true_rows(model: LoadedModel, received: Received, layer: int, positions: IntArray) -> KvRows:
    """Rows of a block before they were encoded."""
    token_ids = [*received.prefix, *received.truth]
    cache = FederatedCache(model.shape.num_layers, model.device)
    forward_tokens(model, cache, token_ids, range(len(token_ids)))
    rows = cache.layers[layer].select(torch.from_numpy(positions).to(model.device))
    keys, values = (part[0].float().cpu().numpy() for part in (rows.keys, rows.values))
    return KvRows(keys=keys, values=values, positions=positions)
