"""The form of block that `FusedDecoder` writes out, and where its modules are in each family."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.nn.functional import gelu, silu

Activation = Callable[[torch.Tensor], torch.Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "silu": silu,
    "swish": silu,
    "gelu_pytorch_tanh": partial(gelu, approximate="tanh"),
}
"""Those that are written out, by their names in a configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedBlock:
    """Modules of one block that `FusedDecoder` runs; all linear layers may have a bias.

        h += attention_norm(output(attention(q, k, value(n))))           n = norm(h)
        h += down_norm(down(activation(gate(m)) * up(m)))                m = mlp_norm(h)

        q = rotate(query_norm(query(n)))                                 k likewise

    Attributes:
        norm, mlp_norm: RMS norms.
        query_key_value: linear layers whose outputs, side by side, are queries, keys and values.
        query_norm, key_norm: RMS norms of every head; None for none.
        output, down: linear layers.
        attention_norm, down_norm: RMS norms before the sums; None for none.
        gate_up: linear layers whose outputs, side by side, are gate and up.
        scaling: factor on the attention scores.
    """

    norm: Any
    query_key_value: tuple[Any, ...]
    query_norm: Any = None
    key_norm: Any = None
    output: Any
    attention_norm: Any = None
    mlp_norm: Any
    gate_up: tuple[Any, ...]
    down: Any
    down_norm: Any = None
    scaling: float


BlockReader = Callable[[Any], FusedBlock]
"""Finds the modules in a decoder layer of transformers."""


def read_gated_block(layer: Any) -> FusedBlock:
    """Llama and its likes; Qwen3 and Gemma 3 norm queries and keys too."""
    attention, mlp = layer.self_attn, layer.mlp
    return FusedBlock(
        norm=layer.input_layernorm,
        query_key_value=(attention.q_proj, attention.k_proj, attention.v_proj),
        query_norm=getattr(attention, "q_norm", None),
        key_norm=getattr(attention, "k_norm", None),
        output=attention.o_proj,
        mlp_norm=layer.post_attention_layernorm,
        gate_up=(mlp.gate_proj, mlp.up_proj),
        down=mlp.down_proj,
        scaling=float(attention.scaling),
    )


def read_sandwiched_block(layer: Any) -> FusedBlock:
    """Gemma 3: a norm before and one after each half."""
    return replace(
        read_gated_block(layer),
        attention_norm=layer.post_attention_layernorm,
        mlp_norm=layer.pre_feedforward_layernorm,
        down_norm=layer.post_feedforward_layernorm,
    )


def read_joined_block(layer: Any) -> FusedBlock:
    """Phi-3: one matrix for queries, keys and values, and one for gate and up."""
    attention, mlp = layer.self_attn, layer.mlp
    return FusedBlock(
        norm=layer.input_layernorm,
        query_key_value=(attention.qkv_proj,),
        output=attention.o_proj,
        mlp_norm=layer.post_attention_layernorm,
        gate_up=(mlp.gate_up_proj,),
        down=mlp.down_proj,
        scaling=float(attention.scaling),
    )
