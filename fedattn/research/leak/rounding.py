"""Rows that a codec could have written as they were received, and rows that it could not."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from fedattn.core.codecs import Codec
from fedattn.core.rotary import Rotary
from fedattn.core.types import FloatArray, HeadRows
from fedattn.model.cache import FederatedCache
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import forward_tokens
from fedattn.research.leak.received import Received, TokenRows, by_token

_NOISE = 1e-5
"""What arithmetic in another order may change, as a share of a row's root mean square."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoundedRow:
    """One token's rows as received, where their codec rounds: keys before or after RoPE.

    Attributes:
        token: K and V of the H heads whose row came.
        slack: [2, H, D] float32, how far each scalar may be from the one that was encoded.
    """

    token: TokenRows
    slack: FloatArray

    def share_impossible(self, computed: torch.Tensor) -> torch.Tensor:
        """Share of the scalars that cannot have come of each candidate's, [C] float32.

        Args:
            computed: [2, Hkv, C, D] float32, as `to_rounded` gives it.
        """
        device = computed.device
        rows, slack = (torch.from_numpy(part).to(device) for part in (self.token.rows, self.slack))
        impossible = (computed[:, self.token.heads] - rows[:, :, None]).abs() > slack[:, :, None]
        return impossible.float().mean(dim=(0, 1, 3))


def to_rounded(rotary: Rotary, codec: Codec, computed: torch.Tensor, position: int) -> torch.Tensor:
    """Computed rows [2, Hkv, C, D] of one position, keys after RoPE, as a codec rounds them."""
    if not codec.keys_before_rope:
        return computed
    keys = computed[0].cpu().numpy()
    undone = rotary.undo(keys, np.full(keys.shape[1], position))
    return torch.stack([torch.from_numpy(undone).to(computed.device), computed[1]])


def rounded_rows(
    model: LoadedModel, received: Received, layer: int, positions: range
) -> dict[int, RoundedRow]:
    """The rows of a block that were received at some positions, by position.

    How a frame was rounded stands in it: its scales, and for floats their exponents. Here the
    same bounds are worked out from the text, which tells the attacker nothing more.
    """
    rows, codec, rotary = received.rows[layer], received.codec, model.rotaries[layer]
    given = _where_rounded(rotary, codec, rows)
    encoded = _where_rounded(rotary, codec, _true_rows(model, received, layer))
    bounds = codec.error_bound(encoded.keys, encoded.values, encoded.counts)
    keys, values = (
        (bound + np.float32(_NOISE) * _size(array)).astype(np.float32)
        for bound, array in zip(bounds, (given.keys, given.values), strict=True)
    )
    slack = by_token(replace(given, keys=keys, values=values))
    return {
        position: RoundedRow(token=token, slack=slack[position].rows)
        for position, token in by_token(given).items()
        if position in positions
    }


def _size(array: FloatArray) -> FloatArray:
    """Root mean square of each row, [N, D] of [N, D]."""
    size = np.sqrt(np.square(array).mean(axis=-1, keepdims=True))
    return np.broadcast_to(size, array.shape)


def _where_rounded(rotary: Rotary, codec: Codec, rows: HeadRows) -> HeadRows:
    """Rows after RoPE as their codec sees them."""
    if not codec.keys_before_rope:
        return rows
    return replace(rows, keys=rotary.undo(rows.keys, rows.positions))


@torch.inference_mode()
def _true_rows(model: LoadedModel, received: Received, layer: int) -> HeadRows:
    """The rows that were received of a block, before they were encoded."""
    rows = received.rows[layer]
    token_ids = [*received.prefix, *received.truth]
    cache = FederatedCache(model.windows, model.device)
    forward_tokens(model, cache, token_ids, range(len(token_ids)))
    heads = np.repeat(np.arange(len(rows.counts)), rows.counts)
    true = cache.layers[layer]
    keys, values = (part[0].float().cpu().numpy() for part in (true.keys, true.values))
    return replace(rows, keys=keys[heads, rows.positions], values=values[heads, rows.positions])
