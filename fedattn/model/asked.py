"""Rows that stay with their owner, and what the publisher's queries make of them."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch

from fedattn.core.answer_bounds import AnswerBounds
from fedattn.core.asked import PartialAttention
from fedattn.core.rotary import Rotary
from fedattn.core.spans import Member
from fedattn.core.transfer import place_rows, places_of
from fedattn.core.types import FloatArray, HeadRows, KvRows
from fedattn.model.blunting import add_noise, attend_bluntly
from fedattn.model.layer_cache import LayerCache


class AskedRows:
    """Rows of one contributor that is asked, at the blocks where it answers.

    Args:
        member: whose rows these are.
        rotaries: of every block.
        windows: of every block, positions that a query sees; None for all earlier ones.
        withheld: tokens of the span, counted from its first, that no query sees.
        bounds: of queries and answers; None for those that change no honest one, but for lengths.
    """

    def __init__(
        self,
        member: Member,
        rotaries: Sequence[Rotary],
        windows: Sequence[int | None],
        withheld: Collection[int] = (),
        bounds: AnswerBounds | None = None,
    ) -> None:
        self._member, self._rotaries, self._windows = member, rotaries, windows
        self._withheld, self._bounds = withheld, bounds or AnswerBounds()
        self._random = np.random.default_rng(self._bounds.seed)
        self._rows: dict[int, LayerCache] = {}

    @property
    def layers(self) -> Mapping[int, LayerCache]:
        """What is kept so far."""
        return self._rows

    def keep(self, layer: int, rows: KvRows) -> None:
        """Take all computed rows of a block, as `KvExchange.send` has them."""
        free = np.delete(np.arange(rows.num_rows), places_of(rows, self._member, self._withheld))
        kept = HeadRows.of(
            KvRows(
                keys=rows.keys[:, free], values=rows.values[:, free], positions=rows.positions[free]
            )
        )
        placed = place_rows(kept, self._member, self._rotaries[layer])
        shape = (1, len(rows.keys), len(free), -1)
        self._rows[layer] = LayerCache(
            torch.from_numpy(placed.keys).view(shape),
            torch.from_numpy(placed.values).view(shape),
            torch.from_numpy(placed.positions[: len(free)]),
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
        rows, num_tokens, bounds = self._rows[layer], queries.shape[1], self._bounds
        bounds.check(queries, layer, first_position, self._member)
        positions = torch.arange(first_position, first_position + num_tokens)
        query = torch.from_numpy(np.require(queries, requirements="W"))[None]
        output, lse = attend_bluntly(
            query, rows, positions, self._windows[layer], bounds.least_rows
        )
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
    lses = torch.stack([lse, *(torch.from_numpy(part.lse)[None].to(lse.device) for part in parts)])
    outputs = [output, *(torch.from_numpy(part.output)[None].to(lse.device) for part in parts)]
    weights = torch.softmax(lses, dim=0)[..., None]
    merged = torch.zeros_like(output)
    for one, weight in zip(outputs, weights, strict=True):
        merged += one * weight
    return merged
