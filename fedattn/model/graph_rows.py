"""Rows of an answer in half precision, as graphs of ggml read and extend them.

Values lie scalar after scalar, so that a product with weights of rows reads them in order. Scores
get what a mask says added: biases of rows, or -inf for those that take no part (any more).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import torch

from fedattn.core.errors import ModelError
from fedattn.model.layer_cache import LayerCache
from fedattn.model.positions import seen_from

_UNIT = 32
"""Rows that the kernels take at a time."""
_NEVER = 1 << 62
_LARGEST = torch.finfo(torch.float16).max
_serials = count()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Heads:
    """Rows of H key/value heads that see the same tokens, with room for C; the last ones newest.

    Attributes:
        keys: [H, C, D] float16.
        values: [H, D, C] float16.
        mask: [C] float32.
        num_rows: S <= C at the beginning.
    """

    keys: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor
    num_rows: int

    def extent(self, num_steps: int) -> int:
        """Rows that there are after so many steps, filled up to what kernels take at a time."""
        return min(_units(self.num_rows + num_steps), self.keys.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockRows:
    """Rows of an answer at one block.

    Attributes:
        heads: all key/value heads in order, those together that see the same tokens.
        keys: [sum of H C, D] float16, those of all heads.
        values: [sum of H D C] float16, likewise.
        next_keys: [Hkv] int64, where among keys the next rows go.
        next_values: [Hkv D] int64, likewise.
    """

    heads: tuple[Heads, ...]
    keys: torch.Tensor
    values: torch.Tensor
    next_keys: torch.Tensor
    next_values: torch.Tensor


class AnswerRows:
    """Rows of one answer at all blocks: a state of `GraphDecoder`.

    Args:
        layers: what a prefill left, of every block.
        windows: of every block.
        position: of the first token.
        room: tokens that may follow.

    Attributes:
        blocks: rows of each block.
        position: of the next token.
        serial: no other answer of this process has it.
        drawn: a graph that begins with this answer, and what it was drawn for.

    Raises:
        ModelError: half precision cannot hold a row.
    """

    def __init__(
        self,
        layers: Sequence[LayerCache],
        windows: Sequence[int | None],
        position: int,
        room: int,
    ) -> None:
        self.position, self._start = position, position
        self.serial = next(_serials)
        self.drawn: tuple[object, object] | None = None
        groups = [
            _seen(rows, position, window).groups()
            for rows, window in zip(layers, windows, strict=True)
        ]
        for block, of_block in enumerate(groups):
            _check_range(of_block, block)
        capacities = [[_units(len(one.positions) + room) for one in of] for of in groups]
        size = sum(map(sum, capacities))
        self._masks = torch.full((size,), -torch.inf)
        self._leaves = None
        if any(window is not None for window in windows):
            self._leaves = torch.full((size,), _NEVER)
        blocks, next_rows, at = [], [], 0
        for of_block, sizes, window in zip(groups, capacities, windows, strict=True):
            heads = []
            for group, capacity in zip(of_block, sizes, strict=True):
                num_rows, here = len(group.positions), slice(at, at + capacity)
                self._masks[at : at + num_rows] = 0 if group.biases is None else group.biases
                if window is not None and self._leaves is not None:
                    new = torch.arange(position, position + capacity - num_rows)
                    self._leaves[here] = torch.cat([group.positions, new]) + window
                next_rows.append(at + num_rows)
                heads.append((group, capacity, self._masks[here]))
                at += capacity
            blocks.append(_lay_out(heads))
        self.blocks = tuple(blocks)
        self._next_rows = torch.tensor(next_rows)

    @property
    def num_steps(self) -> int:
        """Steps so far."""
        return self.position - self._start

    def open(self) -> None:
        """Let the next token see its own row, and no longer what has left its window."""
        self._masks[self._next_rows] = 0.0
        if self._leaves is not None:
            self._masks.masked_fill_(self._leaves == self.position, -torch.inf)

    def advance(self) -> None:
        """The next token has its rows."""
        self.position += 1
        self._next_rows += 1
        for block in self.blocks:
            block.next_keys.add_(1)
            block.next_values.add_(1)


def _seen(rows: LayerCache, position: int, window: int | None) -> LayerCache:
    if window is None:
        return rows
    first = seen_from(position, window)
    return rows.where(lambda positions: positions >= first)


def _check_range(groups: Sequence[LayerCache], block: int) -> None:
    for rows in groups:
        for name, of_heads in (("keys", rows.keys), ("values", rows.values)):
            least, most = of_heads.aminmax()
            largest = float(torch.maximum(-least, most))
            if not largest <= _LARGEST:
                raise ModelError(
                    f"{name} of block {block}: expected scalars of at most {_LARGEST:.0f}, which "
                    f"half precision can hold, got {largest:g}; start this node with "
                    f"--decode-weights float32"
                )


def _lay_out(groups: Sequence[tuple[LayerCache, int, torch.Tensor]]) -> BlockRows:
    """Copy rows to where graphs read them.

    Args:
        groups: rows of some heads, their capacity and their mask.
    """
    size = groups[0][0].keys.shape[-1]
    num_scalars = sum(rows.keys.shape[1] * capacity * size for rows, capacity, _ in groups)
    all_keys, all_values = torch.zeros(2, num_scalars, dtype=torch.float16).unbind()
    heads, next_keys, next_values, at = [], [], [], 0
    for rows, capacity, mask in groups:
        num_heads, num_rows = rows.keys.shape[1], rows.keys.shape[2]
        here = slice(at, at + num_heads * capacity * size)
        keys = all_keys[here].view(num_heads, capacity, size)
        values = all_values[here].view(num_heads, size, capacity)
        keys[:, :num_rows] = rows.keys[0]
        values[..., :num_rows] = rows.values[0].transpose(1, 2)
        next_keys.append(at // size + num_rows + capacity * torch.arange(num_heads))
        next_values.append(at + num_rows + capacity * torch.arange(num_heads * size))
        heads.append(Heads(keys=keys, values=values, mask=mask, num_rows=num_rows))
        at = here.stop
    return BlockRows(
        heads=tuple(heads),
        keys=all_keys.view(-1, size),
        values=all_values,
        next_keys=torch.cat(next_keys),
        next_values=torch.cat(next_values),
    )


def _units(num_rows: int) -> int:
    return -(-num_rows // _UNIT) * _UNIT
