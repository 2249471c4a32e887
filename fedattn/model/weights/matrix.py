"""A matrix of weights in blocks, and how it multiplies."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from fedattn.model.weights.formats import BlockFormat
from fedattn.model.weights.ggml import ggml

_FLOATS, _FLOATS_OF_FEW = 1 << 20, 1 << 18
"""Weights that are floats at a time; for few rows so many as stay in a core's cache."""
_FEW = 16
_WORTH_A_THREAD = 1 << 17
"""Weights that take longer to expand than a thread to wake."""
_helpers = ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="expand")
_rooms: deque[torch.Tensor] = deque(maxlen=2)
"""Room for floats, [_FLOATS] each, for whichever threads multiply next."""


@dataclass(frozen=True, slots=True, eq=False)
class BlocksMatrix:
    """Rows of blocks, usually mapped from a file.

    Attributes:
        form: of the blocks.
        blocks: [out, bytes] uint8, contiguous.
    """

    form: BlockFormat
    blocks: torch.Tensor

    @property
    def num_rows(self) -> int:
        return len(self.blocks)

    @property
    def width(self) -> int:
        """Weights a row."""
        return self.form.row_weights(self.blocks.shape[1])

    @property
    def nbytes(self) -> int:
        return self.blocks.nbytes

    def rows(self, which: torch.Tensor) -> torch.Tensor:
        """[..., in] float32, the rows of some numbers [...] int64."""
        blocks = self.blocks[which.flatten()]
        out = torch.empty(len(blocks), self.width)
        ggml().expand(self.form, blocks, out)
        return out.view(*which.shape, self.width)

    def expand(self) -> torch.Tensor:
        """All of it, [out, in] float32."""
        out = torch.empty(self.num_rows, self.width)
        ggml().expand(self.form, self.blocks, out)
        return out

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in] to [N, out], float32, as the expanded matrix would.

        A part of its rows at a time is expanded, so that there is never a float copy of it.
        """
        width, num_rows = self.width, self.num_rows
        out = torch.empty(len(x), num_rows)
        most = _FLOATS if len(x) > _FEW else _FLOATS_OF_FEW
        at_once = max(1, min(num_rows, most // width))
        with _room(at_once * width) as room:
            for start in range(0, num_rows, at_once):
                part = self.blocks[start : start + at_once]
                weights = room[: len(part) * width].view(-1, width)
                _expand(self.form, part, weights)
                torch.mm(x, weights.T, out=out[:, start : start + at_once])
        return out


def _expand(form: BlockFormat, blocks: torch.Tensor, out: torch.Tensor) -> None:
    """As `Ggml.expand`, on as many threads as torch computes on if it is worth one."""
    kernels, threads = ggml(), torch.get_num_threads()
    if threads == 1 or out.numel() < threads * _WORTH_A_THREAD:
        kernels.expand(form, blocks, out)
        return
    size = -(-len(blocks) // threads)
    parts = [slice(start, start + size) for start in range(0, len(blocks), size)]
    others = [_helpers.submit(kernels.expand, form, blocks[part], out[part]) for part in parts[1:]]
    kernels.expand(form, blocks[parts[0]], out[parts[0]])
    for other in others:
        other.result()


@contextmanager
def _room(count: int) -> Iterator[torch.Tensor]:
    """Room for so many floats, of no other thread meanwhile."""
    try:
        room = _rooms.pop()
    except IndexError:
        room = torch.empty(max(count, _FLOATS))
    yield room if len(room) >= count else torch.empty(count)
    _rooms.append(room)
