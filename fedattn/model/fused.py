"""Decoding one token of each of several answers with little work around the arithmetic.

Gated blocks of RMS norms and rotary attention (`fused_form.py`), written out in `fused_block.py`:
caches of fixed size, no modules in between. The linear layers of all answers are one product, so
that the weights are read once a step; attention is each answer's own. Weights are float32, shared
with the model, or int8 (`packing.py`). `tests/contract/test_fused.py` holds float32 to the oracle.
A model in blocks has a decoder of its own (`graph_decoder.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fedattn.core.errors import ModelError
from fedattn.model.families import FAMILIES, activation_of, read_bases
from fedattn.model.fused_block import Rotation, pack_block, rotation_at
from fedattn.model.fused_form import ACTIVATIONS
from fedattn.model.fused_rest import Norms
from fedattn.model.loading import LoadedModel
from fedattn.model.packing import pack_float32, pack_int8
from fedattn.model.prefill import PrefillResult
from fedattn.model.roomy_rows import RoomyRows, with_room
from fedattn.model.rotaries import read_turnings

INT8, FLOAT32 = "int8", "float32"
_PACKERS = {FLOAT32: pack_float32, INT8: pack_int8}
DECODE_FORMATS = (FLOAT32, INT8)
"""What float weights decode in."""


@dataclass(slots=True)
class FusedState:
    """Rows of every block, and where the answer is.

    Attributes:
        blocks: rows of each block.
        position: of the next token.
    """

    blocks: list[RoomyRows]
    position: int


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
        config = backbone.config
        offset = FAMILIES[config.model_type].norm_offset
        norms = Norms(eps=float(config.rms_norm_eps), offset=offset)
        activation = ACTIVATIONS[activation_of(config)]
        num_heads, shape = model.sizes.num_query_heads, model.shape
        self._embed = backbone.embed_tokens
        self._windows, self._bases = model.windows, read_bases(config)
        self._turnings = dict(
            zip(self._bases, read_turnings(backbone.rotary_emb, self._bases), strict=True)
        )
        self._blocks = [
            pack_block(model.read_block(layer), pack, norms, activation, num_heads, shape)
            for layer in backbone.layers
        ]
        self._norm = norms.pack(backbone.norm)
        self._head = pack([model.head])

    def begin(self, prefill: PrefillResult, room: int) -> FusedState:
        """Copy the rows of a prefill, with room for so many steps."""
        layers = zip(prefill.cache.layers, self._windows, strict=True)
        start = prefill.next_position
        return FusedState([with_room(rows, room, start, window) for rows, window in layers], start)

    @torch.inference_mode()
    def step(self, states: Sequence[FusedState], tokens: Sequence[int]) -> torch.Tensor:
        """As `Decoder.step`."""
        hidden = self._embed(torch.tensor(tokens)).float()
        rotations = self._rotations([state.position for state in states])
        for index, (block, base) in enumerate(zip(self._blocks, self._bases, strict=True)):
            rows = [state.blocks[index] for state in states]
            hidden = block.run(hidden, rows, rotations[base])
        for state in states:
            state.position += 1
        return self._head(self._norm(hidden))

    def _rotations(self, positions: Sequence[int]) -> dict[str | None, Rotation]:
        """Of every kind of block, at N global positions."""
        return {base: rotation_at(turning, positions) for base, turning in self._turnings.items()}
