"""One block written out for decoding: fused projections and nothing between the operations.

What a family has beyond this form gets a field of `PackedBlock`, filled in `pack_block`, and a line
where the arithmetic has it; `Rotation` is where a block's positions enter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import rms_norm, silu

from fedattn.core.types import KvShape
from fedattn.model.families import FusedBlock
from fedattn.model.packing import Linear, Pack
from fedattn.model.roomy_rows import RoomyRows

Norm = Callable[[torch.Tensor], torch.Tensor]
"""[N, d] to the same, float32."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """RoPE at the positions of N tokens.

    Attributes:
        cos, sin: [N, 1, D] float32.
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def turn(self, heads: torch.Tensor) -> torch.Tensor:
        """Rotate heads [N, H, D]."""
        half = heads.shape[-1] // 2
        turned = torch.cat((-heads[..., half:], heads[..., :half]), dim=-1)
        return heads * self.cos + turned * self.sin


class RotaryAngles:
    """Makes rotations from a rotary embedding of transformers."""

    def __init__(self, embedding: Any) -> None:
        self._frequencies = embedding.inv_freq.float()
        self._scale = float(embedding.attention_scaling)

    def at(self, positions: Sequence[int]) -> Rotation:
        """The rotation at N global positions."""
        angles = torch.tensor(positions)[:, None, None] * self._frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return Rotation(angles.cos() * self._scale, angles.sin() * self._scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBlock:
    """A `FusedBlock` ready to run on one token of each of N answers.

    Attributes:
        norm, mlp_norm: before attention and before the gated layers.
        qkv: [N, d] to [N, (Hq + 2 Hkv) D].
        output: [N, Hq D] to [N, d].
        gate_up: [N, d] to [N, 2 ff].
        down: [N, ff] to [N, d].
        scaling: factor on the attention scores.
        num_heads: Hq.
        shape: of its rows.
    """

    norm: Norm
    qkv: Linear
    output: Linear
    mlp_norm: Norm
    gate_up: Linear
    down: Linear
    scaling: float
    num_heads: int
    shape: KvShape

    def run(
        self, hidden: torch.Tensor, rows: Sequence[RoomyRows], rotation: Rotation
    ) -> torch.Tensor:
        """One token of each answer through the block.

        Args:
            hidden: [N, d] float32.
            rows: of each answer at this block; a row is added to each.
            rotation: at the positions of the tokens.

        Returns:
            [N, d] float32.
        """
        hidden = hidden + self.output(self._attend(self.norm(hidden), rows, rotation))
        gate, up = self.gate_up(self.mlp_norm(hidden)).chunk(2, dim=-1)
        return hidden + self.down(silu(gate) * up)

    def _attend(
        self, normed: torch.Tensor, rows: Sequence[RoomyRows], rotation: Rotation
    ) -> torch.Tensor:
        """[N, d] to [N, Hq D]: project, rotate, append to the rows, attend to all of them."""
        kv_heads, size = self.shape.num_kv_heads, self.shape.head_dim
        heads = self.qkv(normed).view(len(rows), -1, size)
        rotated = rotation.turn(heads[:, :-kv_heads])
        queries = rotated[:, : self.num_heads].view(len(rows), kv_heads, -1, size)
        own = torch.stack((rotated[:, -kv_heads:], heads[:, -kv_heads:]), dim=1)
        seen = [
            of_answer.attend(mine, row, self.scaling)
            for of_answer, mine, row in zip(rows, queries.unbind(), own.unbind(), strict=True)
        ]
        return torch.stack(seen).flatten(1)


def pack_norm(module: Any, eps: float) -> Norm:
    """An RMS norm in float32."""
    weight = module.weight.detach().float()
    return lambda x: rms_norm(x, x.shape[-1:], weight, eps)


def pack_block(
    block: FusedBlock, pack: Pack, eps: float, num_heads: int, shape: KvShape
) -> PackedBlock:
    """A block with its linear layers packed.

    Args:
        block: its modules.
        pack: packs linear layers.
        eps: of its norms.
        num_heads: Hq.
        shape: of its rows.
    """
    return PackedBlock(
        norm=pack_norm(block.norm, eps),
        qkv=pack(block.query_key_value),
        output=pack([block.output]),
        mlp_norm=pack_norm(block.mlp_norm, eps),
        gate_up=pack(block.gate_up),
        down=pack([block.down]),
        scaling=block.scaling,
        num_heads=num_heads,
        shape=shape,
    )
