"""Decoding one token at a time with as little work around the arithmetic as can be.

Gated blocks of RMS norms and rotary attention (`FusedBlock`), written out: fused projections,
caches of fixed size, no modules in between. Weights are float32, shared with the model, or int8:
one scale a row, activations quantised a token at a time, which torch does on x86 and ARM without a
compiler. `tests/contract/test_fused.py` holds float32 to the oracle.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear, rms_norm, silu

from fedattn.core.errors import ModelError
from fedattn.model.families import FusedBlock
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import PrefillResult

INT8, FLOAT32 = "int8", "float32"
DECODE_FORMATS = (FLOAT32, INT8)

Linear = Callable[[torch.Tensor], torch.Tensor]
"""[1, in] to [1, out]."""


@dataclass(slots=True)
class FusedState:
    """Rows of every block, with room for the answer.

    Attributes:
        keys, values: [Hkv, rows, D] a block; `num_rows` of them are filled.
        num_rows: filled rows of each block.
        position: of the next token.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    num_rows: list[int]
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
        pack = {FLOAT32: _pack_float32, INT8: _pack_int8}[weights]
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
        state = FusedState(keys=[], values=[], num_rows=[], position=prefill.next_position)
        for layer in prefill.cache.layers:
            heads, rows, size = layer.keys.shape[1:]
            for copies, given in ((state.keys, layer.keys), (state.values, layer.values)):
                grown = torch.empty(heads, rows + room, size)
                grown[:, :rows] = given[0]
                copies.append(grown)
            state.num_rows.append(rows)
        return state

    @torch.inference_mode()
    def step(self, state: FusedState, token: int) -> torch.Tensor:
        """As `Decoder.step`."""
        hidden = self._embedding[token][None].float()
        angles = state.position * self._frequencies
        cos = (angles.cos() * self._rotary_scale).repeat(2)
        sin = (angles.sin() * self._rotary_scale).repeat(2)
        for index, block in enumerate(self._blocks):
            normed = rms_norm(hidden, hidden.shape[-1:], block.norm, self._eps)
            seen = self._attend(state, index, normed, cos, sin)
            hidden = hidden + block.output(seen)
            normed = rms_norm(hidden, hidden.shape[-1:], block.mlp_norm, self._eps)
            gate, up = block.gate_up(normed).chunk(2, dim=-1)
            hidden = hidden + block.down(silu(gate) * up)
        state.position += 1
        return self._head(rms_norm(hidden, hidden.shape[-1:], self._norm, self._eps))[0]

    def _attend(
        self,
        state: FusedState,
        index: int,
        normed: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        """[1, d] to [1, Hq D]: project, rotate, append to the cache, attend to all of it."""
        block = self._blocks[index]
        kv_heads, size = self._shape.num_kv_heads, self._shape.head_dim
        heads = block.qkv(normed).view(-1, size)
        rotated = heads[:-kv_heads]
        half = size // 2
        turned = torch.cat((-rotated[:, half:], rotated[:, :half]), dim=-1)
        rotated = rotated * cos + turned * sin
        row = state.num_rows[index]
        state.keys[index][:, row] = rotated[-kv_heads:]
        state.values[index][:, row] = heads[-kv_heads:]
        state.num_rows[index] = row + 1
        queries = rotated[: self._num_heads].view(kv_heads, -1, size)
        scores = torch.bmm(queries, state.keys[index][:, : row + 1].transpose(1, 2))
        weights = torch.softmax(scores * block.scaling, dim=-1)
        return torch.bmm(weights, state.values[index][:, : row + 1]).view(1, -1)


_Pack = Callable[[Sequence[Any]], Linear]


def _pack_block(block: FusedBlock, pack: _Pack) -> _Block:
    return _Block(
        norm=block.norm.weight.float(),
        qkv=pack(block.query_key_value),
        output=pack([block.output]),
        mlp_norm=block.mlp_norm.weight.float(),
        gate_up=pack(block.gate_up),
        down=pack([block.down]),
        scaling=block.scaling,
    )


def _pack_float32(modules: Sequence[Any]) -> Linear:
    """The modules' own weights, without a copy if they are float32."""
    pairs = [(module.weight.float(), _float_bias(module)) for module in modules]
    if len(pairs) == 1:
        weight, bias = pairs[0]
        return lambda x: linear(x, weight, bias)
    return lambda x: torch.cat([linear(x, weight, bias) for weight, bias in pairs], dim=-1)


def _float_bias(module: Any) -> torch.Tensor | None:
    return None if module.bias is None else module.bias.detach().float()


def _pack_int8(modules: Sequence[Any]) -> Linear:
    """All rows in one int8 matrix, a scale each."""
    weight = torch.cat([module.weight.detach().float() for module in modules])
    biases = [bias for module in modules if (bias := _float_bias(module)) is not None]
    bias = torch.cat(biases) if biases else None
    scales = (weight.abs().amax(dim=1) / 127).clamp(min=1e-12)
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but the only way to the packed kernels
        quantized = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(quantized, bias)
    reduces = not _multiplies_int8_in_hardware()
    run = torch.ops.quantized.linear_dynamic
    return lambda x: run(x, packed, reduces)


def _multiplies_int8_in_hardware() -> bool:
    """Whether 8-bit activations cannot saturate; without, x86 kernels need 7 bits."""
    if torch.backends.quantized.engine == "qnnpack":
        return True
    return bool(torch.cpu._is_vnni_supported())  # noqa: SLF001 - no public way to ask
