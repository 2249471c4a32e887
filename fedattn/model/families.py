"""Which models the attention seam gets right: one row for each `model_type` of transformers.

The seam knows causal attention over all earlier positions, softmax of scaled scores, and a rotary
embedding of whole heads whose frequencies are the same for every layer, prompt and node. Whatever
a configuration asks for beyond that is refused by name: it would load, and answer wrongly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedattn.core.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedBlock:
    """Modules of one block that `FusedDecoder` runs; all linear layers may have a bias.

        h += output(attention(rotate(query(norm(h))), rotate(key(norm(h))), value(norm(h))))
        h += down(silu(gate(mlp_norm(h))) * up(mlp_norm(h)))

    Attributes:
        norm, mlp_norm: RMS norms.
        query_key_value: three linear layers.
        output, down: linear layers.
        gate_up: two linear layers.
        scaling: factor on the attention scores.
    """

    norm: Any
    query_key_value: tuple[Any, Any, Any]
    output: Any
    mlp_norm: Any
    gate_up: tuple[Any, Any]
    down: Any
    scaling: float


BlockReader = Callable[[Any], FusedBlock]
"""Finds the modules in a decoder layer of transformers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What one `model_type` needs.

    Attributes:
        read_block: for `FusedDecoder`; None if its blocks are not of that form, so that those of
            transformers decode.
        check: refuses by ModelError what only this family can be configured to do.
    """

    read_block: BlockReader | None = None
    check: Callable[[Any], None] = lambda _: None


def _read_gated_block(layer: Any) -> FusedBlock:
    attention, mlp = layer.self_attn, layer.mlp
    return FusedBlock(
        norm=layer.input_layernorm,
        query_key_value=(attention.q_proj, attention.k_proj, attention.v_proj),
        output=attention.o_proj,
        mlp_norm=layer.post_attention_layernorm,
        gate_up=(mlp.gate_proj, mlp.up_proj),
        down=mlp.down_proj,
        scaling=float(attention.scaling),
    )


FAMILIES: dict[str, Family] = {
    "llama": Family(read_block=_read_gated_block),
    "qwen2": Family(read_block=_read_gated_block),
}

_FUSED_ACTIVATIONS = frozenset({"silu", "swish"})
_FULL = "full_attention"
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "attention_chunk_size": (None,),
    "attention_multiplier": (None,),
    "embedding_multiplier": (None, 1.0),
    "residual_multiplier": (None, 1.0),
    "logits_scaling": (None, 1.0),
    "no_rope_layers": (None, []),
    "num_kv_shared_layers": (None, 0),
    "partial_rotary_factor": (None, 1.0),
    "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False),
    "quantization_config": (None,),
}
"""Configuration keys and the values at which they change nothing the seam relies on."""
_ROPE_KEYS = frozenset({
    "rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings",
    "low_freq_factor", "high_freq_factor", "attention_factor", "beta_fast", "beta_slow", "mscale",
    "mscale_all_dim", "truncate", "partial_rotary_factor",
})  # fmt: skip
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Those whose frequencies do not depend on how long the prompt is."""


def check_config(config: Any, name: str = "the model") -> None:
    """Refuse what the seam cannot do.

    Args:
        config: of the model, a `PretrainedConfig`.
        name: of the model, for the message.

    Raises:
        ModelError: names the configuration key, its value and what is expected.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise ModelError(
            f"model {name} is of family {config.model_type!r}; "
            f"supported are {', '.join(sorted(FAMILIES))}"
        )
    try:
        _check_layers(config)
        for key, neutral in _NEUTRAL.items():
            _require(key, getattr(config, key, None), neutral)
        _check_rotary(getattr(config, "rope_parameters", None) or {})
        family.check(config)
    except ModelError as error:
        raise ModelError(f"model {name} would be answered for wrongly: {error}") from None


def block_reader(config: Any) -> BlockReader | None:
    """How `FusedDecoder` reads the blocks of a checked model; None if it cannot run them."""
    if config.hidden_act not in _FUSED_ACTIVATIONS:
        return None
    return FAMILIES[config.model_type].read_block


def _check_layers(config: Any) -> None:
    """All layers must attend to every earlier position."""
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        _require("sliding_window", getattr(config, "sliding_window", None), (None,))
        return
    others = [f"{at} {kind}" for at, kind in enumerate(kinds) if kind != _FULL]
    if others:
        window = getattr(config, "sliding_window", None)
        raise ModelError(
            f"layer_types: expected {_FULL} everywhere, got at layer {others[0]}, {len(others)} "
            f"layers in all (sliding_window {window}); use a model without sliding windows"
        )


def _check_rotary(parameters: dict[str, Any]) -> None:
    kind = parameters.get("rope_type", "default")
    if kind not in _ROPE_TYPES:
        raise ModelError(
            f"rope_type: expected one of {', '.join(_ROPE_TYPES)}, got {kind!r}, whose frequencies "
            f"may differ between layers or with a prompt's length"
        )
    if unknown := sorted(parameters.keys() - _ROPE_KEYS):
        raise ModelError(f"rope_parameters: {unknown[0]} is not known here")
    _require(
        "partial_rotary_factor",
        parameters.get("partial_rotary_factor"),
        _NEUTRAL["partial_rotary_factor"],
    )


def _require(key: str, value: Any, neutral: tuple[Any, ...]) -> None:
    if value not in neutral:
        shown = type(value).__name__ if isinstance(value, dict | list) else repr(value)
        raise ModelError(f"{key}: expected {neutral[-1]}, got {shown[:80]}")
