"""One block written out for decoding: fused projections and nothing between the operations.

What a family has beyond this form gets a field of `PackedBlock`, filled in `pack_block`, and a line
where the arithmetic has it; `Rotation` is where a block's positions enter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedattn.core.types import KvShape
from fedattn.model.fused_form import Activation, FusedBlock
from fedattn.model.fused_rest import Norm, Norms, Rest, pack_rest
from fedattn.model.packing import Linear, Pack
from fedattn.model.roomy_rows import RoomyRows
from fedattn.model.rotaries import Turning


@dataclass(frozen=True, slots=True)
class Rotation:
    """RoPE at the positions of N tokens.

    Attributes:
        cos: [N, 1, 2 R] float32; R is 0 in blocks without positions.
        sin: likewise, its first half negative: scalar i turns against i + R.
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def turn(self, heads: torch.Tensor) -> torch.Tensor:
        """Rotate the first 2 R scalars of heads [N, H, D]."""
        size = self.cos.shape[-1]
        if size == heads.shape[-1]:
            return self._turn_all(heads)
        if not size:
            return heads
        return torch.cat((self._turn_all(heads[..., :size]), heads[..., size:]), dim=-1)

    def _turn_all(self, heads: torch.Tensor) -> torch.Tensor:
        turned = heads.roll(heads.shape[-1] // 2, dims=-1)
        return torch.addcmul(heads * self.cos, turned, self.sin)


def rotation_at(turning: Turning, positions: Sequence[int]) -> Rotation:
    """The rotation at N global positions."""
    angles = torch.tensor(positions)[:, None, None] * turning.frequencies
    cos, sin = angles.cos() * turning.scale, angles.sin() * turning.scale
    return Rotation(torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1))


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBlock:
    """A `FusedBlock` ready to run on one token of each of N answers.

    Attributes:
        norm: before attention.
        qkv: [N, d] to [N, (Hq + 2 Hkv) D].
        query_norm, key_norm: of every head; None for none.
        rest: what follows attention.
        scaling: factor on the attention scores.
        num_heads: Hq.
        shape: of its rows.
    """

    norm: Norm
    qkv: Linear
    query_norm: Norm | None
    key_norm: Norm | None
    rest: Rest
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
            rotation: of this block, at the positions of the tokens.

        Returns:
            [N, d] float32.
        """
        return self.rest(hidden, self._attend(self.norm(hidden), rows, rotation))

    def _attend(
        self, normed: torch.Tensor, rows: Sequence[RoomyRows], rotation: Rotation
    ) -> torch.Tensor:
        """[N, d] to [N, Hq D]: project, rotate, append to the rows, attend to all of them."""
        kv_heads, size = self.shape.num_kv_heads, self.shape.head_dim
        heads = self.qkv(normed).view(len(rows), -1, size)
        rotated = rotation.turn(self._norm_heads(heads[:, :-kv_heads]))
        queries = rotated[:, : self.num_heads].view(len(rows), kv_heads, -1, size)
        own = torch.stack((rotated[:, -kv_heads:], heads[:, -kv_heads:]), dim=1)
        seen = [
            of_answer.attend(mine, row, self.scaling)
            for of_answer, mine, row in zip(rows, queries.unbind(), own.unbind(), strict=True)
        ]
        return torch.stack(seen).flatten(1)

    def _norm_heads(self, heads: torch.Tensor) -> torch.Tensor:
        """Queries and keys [N, Hq + Hkv, D], each with the norm of its kind."""
        if self.query_norm is None or self.key_norm is None:
            return heads
        queries, keys = heads[:, : self.num_heads], heads[:, self.num_heads :]
        return torch.cat((self.query_norm(queries), self.key_norm(keys)), dim=1)


def pack_block(  # noqa: PLR0913, PLR0917 - spelt out
    block: FusedBlock,
    pack: Pack,
    norms: Norms,
    activation: Activation,
    num_heads: int,
    shape: KvShape,
) -> PackedBlock:
    """A block with its linear layers packed.

    Args:
        block: its modules.
        pack: packs linear layers.
        norms: makes its norms.
        activation: of its gates.
        num_heads: Hq.
        shape: of its rows.
    """
    return PackedBlock(
        norm=norms.pack(block.norm),
        qkv=pack(block.query_key_value),
        query_norm=norms.pack_if_any(block.query_norm),
        key_norm=norms.pack_if_any(block.key_norm),
        rest=pack_rest(block, pack, norms, activation),
        scaling=block.scaling,
        num_heads=num_heads,
        shape=shape,
    )
