"""Rows that stay with their owner, and what the publisher's queries make of them."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch

from fedattn.core.answer_bounds import AnswerBounds
from fedattn.core.asked import PartialAttention
from fedattn.core.rotary import Rotary
from fedattn.core.spans import Member
from fedattn.core.transfer import places_of
from fedattn.core.types import FloatArray, KvRows
from fedattn.model.blunting import add_noise, attend_bluntly
from fedattn.model.layer_cache import LayerCache


class AskedRows:
    """Rows of one contributor that is asked, at the blocks where it answers.

    Args:
        member: whose rows these are.
        rotaries: of every block.
        windows: of every block, positions that a query sees; None for all earlier ones.
        withheld: tokens of the span, counted from its first, that no query sees.
        known: rows kept in an earlier session of the same text.
        bounds: of queries and answers; None for those that change no honest one, but for lengths.

    Attributes:
        member: whose rows these are.
        kept: rows by block, where they are computed: right behind the public prefix, so that they
            are good for every session.
    """

    def __init__(  # noqa: PLR0913 - spelt out
        self,
        member: Member,
        rotaries: Sequence[Rotary],
        windows: Sequence[int | None],
        withheld: Collection[int] = (),
        *,
        known: Mapping[int, LayerCache] = MappingProxyType({}),
        bounds: AnswerBounds | None = None,
    ) -> None:
        self.member, self._rotaries, self._windows = member, rotaries, windows
        self._withheld, self._bounds = withheld, bounds or AnswerBounds()
        self._random = np.random.default_rng(self._bounds.seed)
        self.kept: dict[int, LayerCache] = dict(known)

    def keep(self, layer: int, rows: KvRows) -> None:
        """Take all computed rows of a block, as `KvExchange.send` has them."""
        free = np.delete(np.arange(rows.num_rows), places_of(rows, self.member, self._withheld))
        self.kept[layer] = LayerCache(
            torch.from_numpy(rows.keys[None, :, free]),
            torch.from_numpy(rows.values[None, :, free]),
            torch.from_numpy(rows.positions[free]),
        )

    @torch.inference_mode()
    def answer(self, layer: int, queries: FloatArray, first_position: int) -> PartialAttention:
        """What queries make of these rows.

        Args:
            layer: one that is kept.
            queries: [Hq, T, D] float32 after RoPE, scaled.
            first_position: global, of the first of the T tokens; the others follow it.

        Raises:
            CorruptFrameError: the bounds refuse them.
        """
        rows, num_tokens, offset = self.kept[layer], queries.shape[1], self.member.position_offset
        bounds = self._bounds
        bounds.check(queries, layer, first_position, self.member)
        first = first_position - offset
        positions = torch.arange(first, first + num_tokens)
        turned = self._rotaries[layer].undo(queries, np.array([offset]))
        query, window = torch.from_numpy(turned)[None], self._windows[layer]
        output, lse = attend_bluntly(query, rows, positions, window, bounds.least_rows)
        part = PartialAttention(output=output[0].numpy(), lse=lse[0].numpy())
        return add_noise(part, rows, bounds.noise, self._random) if bounds.noise else part


def merge_parts(
    output: torch.Tensor, lse: torch.Tensor, parts: Collection[PartialAttention]
) -> torch.Tensor:
    """Attention over all rows, from that over the own ones and others' parts.

    Args:
        output: [1, Hq, T, D] float32 over the own rows.
        lse: [1, Hq, T] float32 of the same.
        parts: of others, for the same queries.

    Returns:
        [1, Hq, T, D] float32.
    """
    others = [torch.tensor(part.lse, device=lse.device)[None] for part in parts]
    lses = torch.stack([lse, *others])
    outputs = [output, *(torch.tensor(part.output, device=lse.device)[None] for part in parts)]
    weights = torch.softmax(lses, dim=0)[..., None]
    merged = torch.zeros_like(output)
    for one, weight in zip(outputs, weights, strict=True):
        merged += one * weight
    return merged
