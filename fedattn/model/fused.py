"""Decoding one token at a time with as little work around the arithmetic as can be.

Gated blocks of RMS norms and rotary attention (`FusedBlock`), written out: fused projections,
caches of fixed size, no modules in between. Weights are float32, shared with the model, or int8:
one scale a row, activations quantised a token at a time, which torch does on x86 and ARM without a
compiler. `tests/contract/test_fused.py` holds float32 to the oracle.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import rms_norm, silu

from fedattn.core.errors import ModelError
from fedattn.model.families import FusedBlock
from fedattn.model.loading import LoadedModel
from fedattn.model.packing import Linear, Pack, pack_float32, pack_int8
from fedattn.model.prefill import PrefillResult
from fedattn.model.roomy_rows import RoomyRows, with_room

INT8, FLOAT32 = "int8", "float32"
_PACKERS = {FLOAT32: pack_float32, INT8: pack_int8}
DECODE_FORMATS = tuple(_PACKERS)


@dataclass(slots=True)
class FusedState:
    """Rows of every block, and where the answer is.

    Attributes:
        blocks: rows of each block.
        position: of the next token.
    """

    blocks: list[RoomyRows]
    position: int


@dataclass(frozen=True, slots=True)
class _Block:
    norm: torch.Tensor
    qkv: Linear
    output: Linear
    mlp_norm: torch.Tensor
    gate_up: Linear
    down: Linear
    scaling: float


class FusedDecoder:
    """`Decoder` on the CPU.

    Args:
        model: on the CPU; in half precision only int8 weights spare a copy.
        weights: one of DECODE_FORMATS.

    Raises:
        ModelError: its blocks are not of the form that is written out here.
    """

    def __init__(self, model: LoadedModel, weights: str) -> None:
        if model.read_block is None:
            raise ModelError("the fused decoder cannot run this model's blocks; decode in float32")
        pack = _PACKERS[weights]
        backbone: Any = model.backbone
        self._shape = model.shape
        self._num_heads = model.sizes.num_query_heads
        self._eps = float(backbone.config.rms_norm_eps)
        self._embedding = backbone.embed_tokens.weight
        self._blocks = [_pack_block(model.read_block(layer), pack) for layer in backbone.layers]
        self._norm = backbone.norm.weight.float()
        self._head = pack([model.head])
        self._frequencies = backbone.rotary_emb.inv_freq.float()
        self._rotary_scale = float(backbone.rotary_emb.attention_scaling)

    def begin(self, prefill: PrefillResult, room: int) -> FusedState:
        """Copy the rows of a prefill, with room for so many steps."""
        blocks = [with_room(layer, room) for layer in prefill.cache.layers]
        return FusedState(blocks, prefill.next_position)

    @torch.inference_mode()
    def step(self, state: FusedState, token: int) -> torch.Tensor:
        """As `Decoder.step`."""
        hidden = self._embedding[token][None].float()
        angles = state.position * self._frequencies
        cos = (angles.cos() * self._rotary_scale).repeat(2)
        sin = (angles.sin() * self._rotary_scale).repeat(2)
        for index, block in enumerate(self._blocks):
            normed = rms_norm(hidden, hidden.shape[-1:], block.norm, self._eps)
            seen = self._attend(block, state.blocks[index], normed, cos, sin)
            hidden = hidden + block.output(seen)
            normed = rms_norm(hidden, hidden.shape[-1:], block.mlp_norm, self._eps)
            gate, up = block.gate_up(normed).chunk(2, dim=-1)
            hidden = hidden + block.down(silu(gate) * up)
        state.position += 1
        return self._head(rms_norm(hidden, hidden.shape[-1:], self._norm, self._eps))[0]

    def _attend(
        self,
        block: _Block,
        rows: RoomyRows,
        normed: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        """[1, d] to [1, Hq D]: project, rotate, append to the cache, attend to all of it."""
        kv_heads, size = self._shape.num_kv_heads, self._shape.head_dim
        heads = block.qkv(normed).view(-1, size)
        rotated = heads[:-kv_heads]
        half = size // 2
        turned = torch.cat((-rotated[:, half:], rotated[:, :half]), dim=-1)
        rotated = rotated * cos + turned * sin
        rows.append(rotated[-kv_heads:], heads[-kv_heads:])
        queries = rotated[: self._num_heads].view(kv_heads, -1, size)
        return rows.attend(queries, block.scaling).view(1, -1)


def _pack_block(block: FusedBlock, pack: Pack) -> _Block:
    return _Block(
        norm=block.norm.weight.float(),
        qkv=pack(block.query_key_value),
        output=pack([block.output]),
        mlp_norm=block.mlp_norm.weight.float(),
        gate_up=pack(block.gate_up),
        down=pack([block.down]),
        scaling=block.scaling,
    )
