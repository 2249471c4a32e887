"""The slow, obvious version: one model over the joined tokens, dense masks, no cache.

Where rows are refitted on their way, others see them with biases and values that their owner does
not: these are taken from what travelled.

It shares no line with the fast path but the mask definition in `fedattn.core.visibility`, and is
kept for ever: every faster path must give its logits and its greedy tokens.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from fedattn.core.spans import Member, SessionLayout
from fedattn.core.types import HeadRows, IntArray
from fedattn.core.visibility import (
    PREFIX_OWNER,
    KeptPositions,
    computed_positions,
    token_owners,
    visibility_mask,
)
from fedattn.model.attention import run_model, sdpa
from fedattn.model.loading import LoadedModel


class DenseMasks:
    """A `KvView` of one sequence that holds every token: full masks for every block.

    One for all heads, or one for each key/value head where `kept` says what travelled.

    A shifted contributor sees the public prefix right before its span. Only distances matter to
    RoPE, so the sequence begins with copies of the prefix, one for each shifted contributor and
    seen by nobody else, at the positions right before its span.
    """

    def __init__(
        self,
        model: LoadedModel,
        layout: SessionLayout,
        num_generated: int,
        kept: KeptPositions | None,
        responder: int | None = None,
    ) -> None:
        self.windows = model.windows
        self._layout, self._responder = layout, responder
        self._num_generated, self._kept = num_generated, kept
        self._masks = [
            torch.from_numpy(self._layer_masks(layer)).to(model.device)[None]
            for layer in range(layout.num_layers)
        ]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        return sdpa(query, key, value, self.mask(layer, query.shape[1]), scaling)

    def remote(self) -> torch.Tensor:
        """[S, S] bool: whether the key is of another participant than the query."""
        layout, num_generated = self._layout, self._num_generated
        owners = token_owners(layout, num_generated, self._responder)
        owners = owners[computed_positions(layout, num_generated)]
        others = (owners[None, :] != owners[:, None]) & (owners[None, :] != PREFIX_OWNER)
        before = layout.prefix_len * len(_shifted(layout))
        whole = np.zeros((before + len(others), before + len(others)), dtype=np.bool_)
        whole[before:, before:] = others
        return torch.from_numpy(whole)

    def place_of(self, positions: IntArray) -> IntArray:
        """Indices of global positions among the S."""
        chosen = computed_positions(self._layout, self._num_generated)
        before = self._layout.prefix_len * len(_shifted(self._layout))
        return before + np.searchsorted(chosen, positions)

    def mask(self, layer: int, num_heads: int) -> torch.Tensor:
        """[1, 1, S, S] bool, or [1, Hq, S, S] with so many query heads."""
        masks = self._masks[layer]
        num_masks = masks.shape[1]
        return masks if num_masks == 1 else masks.repeat_interleave(num_heads // num_masks, dim=1)

    def _layer_masks(self, layer: int) -> npt.NDArray[np.bool_]:
        """[1, S, S] or [Hkv, S, S]."""
        layout, num_generated, kept = self._layout, self._num_generated, self._kept or {}
        said = [positions for (_, at_layer), positions in kept.items() if at_layer == layer]
        chosen = computed_positions(layout, num_generated)
        masks = [
            visibility_mask(layout, layer, num_generated, kept, self._responder, head=head)
            for head in range(len(said[0]) if said else 1)
        ]
        return np.stack(
            [_with_copies(layout, mask[np.ix_(chosen, chosen)], chosen) for mask in masks]
        ) & self._within_window(layer)

    def _within_window(self, layer: int) -> npt.NDArray[np.bool_]:
        """[S, S]: whether a query is less than the block's window behind a key."""
        at = sequence_positions(self._layout, self._num_generated)
        window = self.windows[layer]
        limit = np.inf if window is None else window
        within: npt.NDArray[np.bool_] = at[:, None] - at[None, :] < limit
        return within


class RefittedRows:
    """A `KvView` as `DenseMasks`, where others see biases and values that the owner does not.

    Args:
        masks: who sees which rows.
        travelled: rows that did, by (participant, layer).
    """

    def __init__(self, masks: DenseMasks, travelled: Mapping[tuple[int, int], HeadRows]) -> None:
        self._masks, self._travelled = masks, travelled
        self.windows = masks.windows
        self._remote = masks.remote()

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        biases, moved = torch.zeros(value.shape[1:3]), value[0].clone()
        for (_, at_layer), rows in self._travelled.items():
            if at_layer == layer:
                for head, here in enumerate(rows.heads):
                    places = self._masks.place_of(rows.positions[here])
                    moved[head, places] = torch.tensor(rows.values[here])
                    if rows.biases is not None:
                        biases[head, places] = torch.tensor(rows.biases[here])
        group = query.shape[1] // key.shape[1]
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        weights = self.weights(layer, query[0] * scale, key[0], biases)
        own = weights * ~self._remote @ value[0].repeat_interleave(group, dim=0)
        others = weights * self._remote @ moved.repeat_interleave(group, dim=0)
        return (own + others)[None]

    def weights(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, biases: torch.Tensor
    ) -> torch.Tensor:
        """Attention [Hq, S, S] of scaled queries [Hq, S, D].

        Args:
            layer: zero-based.
            query: scaled.
            key: [Hkv, S, D].
            biases: [Hkv, S] that others see.
        """
        group = query.shape[0] // key.shape[0]
        scores = query @ key.repeat_interleave(group, dim=0).transpose(1, 2)
        scores += self._remote * biases.repeat_interleave(group, dim=0)[:, None]
        visible = self._masks.mask(layer, query.shape[0])[0]
        return torch.softmax(scores.masked_fill(~visible, -torch.inf), dim=-1)


def _shifted(layout: SessionLayout) -> list[Member]:
    return [member for member in layout.members if member.position_offset]


def sequence_positions(layout: SessionLayout, num_generated: int) -> IntArray:
    """[S] global positions of the sequence, copies of the prefix first."""
    prefix = np.arange(layout.prefix_len)
    copies = [member.position_offset + prefix for member in _shifted(layout)]
    return np.concatenate([*copies, computed_positions(layout, num_generated)])


def _with_copies(
    layout: SessionLayout, mask: npt.NDArray[np.bool_], chosen: IntArray
) -> npt.NDArray[np.bool_]:
    """The mask of the sequence with copies of the prefix before it."""
    size, copies = layout.prefix_len, _shifted(layout)
    before = size * len(copies)
    whole = np.zeros((before + len(mask), before + len(mask)), dtype=np.bool_)
    whole[before:, before:] = mask
    for number, member in enumerate(copies):
        copy = np.arange(number * size, (number + 1) * size)
        owned = before + np.flatnonzero((chosen >= member.span.start) & (chosen < member.span.stop))
        whole[np.ix_(copy, copy)] = np.tril(np.ones((size, size), dtype=np.bool_))
        whole[np.ix_(owned, np.arange(before, before + size))] = False
        whole[np.ix_(owned, copy)] = True
    return whole


@torch.inference_mode()
def oracle_logits(  # noqa: PLR0913, PLR0917 - spelt out
    model: LoadedModel,
    layout: SessionLayout,
    token_ids: list[int],
    generated: list[int],
    kept: KeptPositions | None = None,
    responder: int | None = None,
    *,
    travelled: Mapping[tuple[int, int], HeadRows] | None = None,
) -> torch.Tensor:
    """Logits after every token of the joined sequence that takes part.

    Args:
        model: the model.
        layout: spans, plans and dropped inputs.
        token_ids: public prefix and all spans joined, `layout.num_tokens` of them.
        generated: answer tokens so far.
        kept: which rows travelled.
        responder: place of the participant the answer belongs to; None for the publisher.
        travelled: rows as they arrived, where they were refitted; else None.

    Returns:
        [S, V] float32.
    """
    if len(token_ids) != layout.num_tokens:
        raise ValueError(f"expected {layout.num_tokens} tokens, got {len(token_ids)}")
    chosen = torch.from_numpy(computed_positions(layout, len(generated))).to(model.device)
    ids = torch.tensor(token_ids + generated, dtype=torch.int64, device=model.device)
    masks = DenseMasks(model, layout, len(generated), kept, responder)
    copies = _shifted(layout)
    positions = torch.from_numpy(sequence_positions(layout, len(generated))).to(model.device)
    tokens = torch.cat([*(ids[: layout.prefix_len] for _ in copies), ids[chosen]])
    view = masks if travelled is None else RefittedRows(masks, travelled)
    hidden = run_model(model.backbone, tokens, positions, view)
    hidden = hidden[len(copies) * layout.prefix_len :]
    logits: torch.Tensor = model.head(hidden).float()
    return logits


def oracle_greedy(  # noqa: PLR0913, PLR0917 - spelt out
    model: LoadedModel,
    layout: SessionLayout,
    token_ids: list[int],
    max_new_tokens: int,
    kept: KeptPositions | None = None,
    responder: int | None = None,
    *,
    travelled: Mapping[tuple[int, int], HeadRows] | None = None,
) -> list[int]:
    """Greedy answer tokens, recomputing everything for each one; ends before an end token."""
    generated: list[int] = []
    while len(generated) < max_new_tokens:
        logits = oracle_logits(
            model, layout, token_ids, generated, kept, responder, travelled=travelled
        )
        token = int(logits[-1].argmax())
        if token in model.end_token_ids:
            break
        generated.append(token)
    return generated
