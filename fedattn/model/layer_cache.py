"""Rows of one block of one participant, own ones and those it received."""

from collections.abc import Callable

import torch

from fedattn.core.types import head_slices
from fedattn.model.head_rows import RaggedRows

PositionTest = Callable[[torch.Tensor], torch.Tensor]
"""Says of positions [S] which are wanted, [S] bool."""


class LayerCache:
    """Rows of one block: keys after RoPE and their global positions, in token order.

    Worked example, prefix of 2 tokens, own span [4, 6):

        seeded                          positions 0 1
        append, this block receives     positions 0 1 | 2 3 | 4 5     2 and 3 came from others
        append, this block is local     positions 0 1 | 4 5
        append, a decoded token         positions ... 6

    Where heads received different rows, those stay apart:

        append, this block receives     positions 0 1 | 4 5           others: 2 3 | 3

    Attributes:
        keys: [1, Hkv, S, D].
        values: [1, Hkv, S, D].
        positions: [S] int64.
        others: received rows of which each head has a set of its own; None if there are none.
        biases: [S] added to the scores of a row; None for none.
    """

    def __init__(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        positions: torch.Tensor,
        others: RaggedRows | None = None,
        biases: torch.Tensor | None = None,
    ) -> None:
        self.keys, self.values, self.positions = keys, values, positions
        self.others, self.biases = others, biases

    def tensors(self) -> list[torch.Tensor]:
        """All that it holds."""
        others = [] if self.others is None else self.others.tensors()
        return [self.keys, self.values, self.positions, *others]

    def groups(self) -> list["LayerCache"]:
        """The rows by what queries see: heads that see the same ones together.

        Returns:
            Itself; or with `others` one for each of the Hkv heads, keys [1, 1, n + S, D], those of
            others first. Each goes with as many query heads, in their order.
        """
        if self.others is None:
            return [self]
        others, none = self.others, self.keys.new_zeros(len(self.positions))
        return [
            LayerCache(
                torch.cat([others.keys[None, None, here], self.keys[:, head : head + 1]], dim=2),
                torch.cat(
                    [others.values[None, None, here], self.values[:, head : head + 1]], dim=2
                ),
                torch.cat([others.positions[here], self.positions]),
                biases=torch.cat([others.biases[here], none]),
            )
            for head, here in enumerate(head_slices(others.counts))
        ]

    def select(self, chosen: torch.Tensor) -> "LayerCache":
        """The rows at indices, or of a boolean mask, and all of `others`."""
        return self._cut(chosen, self.others)

    def where(self, is_wanted: PositionTest) -> "LayerCache":
        """The rows at positions that a test takes; of `others` too."""
        return self._cut(is_wanted(self.positions), self._others_where(is_wanted))

    def without_last(self, num_rows: int) -> "LayerCache":
        """The rows without so many own ones, which come last; views of the same memory."""
        return self._cut(slice(len(self.positions) - num_rows), self.others)

    def before(self, position: int) -> "LayerCache":
        """The rows before a global position; views of the same memory."""
        num_rows = int((self.positions < position).sum())
        others = self._others_where(lambda positions: positions < position)
        return self._cut(slice(num_rows), others)

    def since(self, position: int) -> "LayerCache":
        """The rows from a global position on, and all of `others`; views of the same memory."""
        num_before = int((self.positions < position).sum())
        return self._cut(slice(num_before, None), self.others)

    def _cut(self, chosen: torch.Tensor | slice, others: RaggedRows | None) -> "LayerCache":
        return LayerCache(
            self.keys[:, :, chosen],
            self.values[:, :, chosen],
            self.positions[chosen],
            others,
            None if self.biases is None else self.biases[chosen],
        )

    def _others_where(self, is_wanted: PositionTest) -> RaggedRows | None:
        return self.others and self.others.select(is_wanted(self.others.positions))


def join_rows(parts: list[LayerCache]) -> LayerCache:
    """Rows of all parts, one after the other; at most one of them has `others`."""
    others = [part.others for part in parts if part.others is not None]
    assert len(others) <= 1
    return LayerCache(
        torch.cat([part.keys for part in parts], dim=2),
        torch.cat([part.values for part in parts], dim=2),
        torch.cat([part.positions for part in parts]),
        others[0] if others else None,
    )


def held_bytes(layers: list[LayerCache]) -> int:
    """Bytes of the memory that rows lie in, once each: a view holds all that it is cut from."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for layer in layers
        for tensor in layer.tensors()
    }
    return sum(storages.values())
