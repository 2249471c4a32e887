"""The rotary position embedding of every block, read from the one of the whole model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fedattn.core.rotary import Rotary


@dataclass(frozen=True, slots=True, kw_only=True)
class Turning:
    """How one block turns queries and keys.

    Attributes:
        frequencies: [R] float32 radians a position; none where a block knows no positions.
        scale: factor on what is turned.
    """

    frequencies: torch.Tensor
    scale: float

    @property
    def rotary(self) -> Rotary:
        """The rotation; factors stay as they are when a key is turned back."""
        return Rotary(inverse_frequencies=self.frequencies.double().cpu().numpy())

    def longest(self, head_dim: int) -> float:
        """By how much a key of head size D gets longer at most."""
        turned = 2 * len(self.frequencies)
        return self.scale if turned == head_dim else max(1.0, self.scale if turned else 1.0)


def read_turnings(embedding: Any, bases: Sequence[str | None]) -> list[Turning]:
    """Of every block.

    Args:
        embedding: the rotary embedding of transformers.
        bases: of every block, the kind of layer whose frequencies it takes, empty if there is
            but one kind; None for a block that turns nothing.
    """
    none = Turning(frequencies=torch.empty(0), scale=1.0)
    known = {base: _read(embedding, base) for base in set(bases) if base is not None}
    return [none if base is None else known[base] for base in bases]


def _read(embedding: Any, base: str) -> Turning:
    prefix = f"{base}_" if base else ""
    return Turning(
        frequencies=getattr(embedding, f"{prefix}inv_freq").detach().float(),
        scale=float(getattr(embedding, f"{prefix}attention_scaling")),
    )
