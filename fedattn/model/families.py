"""Which models the attention seam gets right: one row for each `model_type` of transformers.

The seam knows causal attention within a block's window, softmax of scaled scores, and a rotary
embedding whose frequencies are the same for every prompt and node. What differs from block to block
(windows, which frequencies, none at all) a row of the table reads from the configuration. Whatever
a configuration asks for beyond that is refused by name: it would load, and answer wrongly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedattn.core.errors import ModelError
from fedattn.model.fused_form import (
    ACTIVATIONS,
    BlockReader,
    read_gated_block,
    read_joined_block,
    read_sandwiched_block,
)

Windows = tuple[int | None, ...]
"""Of every block, positions that a query sees, its own included; None for all earlier ones."""
Bases = tuple[str | None, ...]
"""Of every block, the kind of layer whose rotary frequencies it takes, empty if a model has one
kind; None if it turns nothing.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What one `model_type` needs.

    Attributes:
        windows: of every block of a configuration.
        bases: of every block of a configuration.
        read_block: for `FusedDecoder`.
        knows: keys of `_NEUTRAL` that the other attributes take care of.
        rope_types: kinds of rotary embedding that its blocks may have.
        norm_offset: what its RMS norms add to their weights.
    """

    windows: Callable[[Any], Windows]
    bases: Callable[[Any], Bases]
    read_block: BlockReader
    knows: frozenset[str] = frozenset()
    rope_types: tuple[str, ...] = ("default", "linear", "llama3", "yarn")
    norm_offset: float = 0.0


def _no_windows(config: Any) -> Windows:
    """Blocks that know no windows, whatever the configuration says of them."""
    _require("sliding_window", getattr(config, "sliding_window", None), (None,))
    for layer, kind in enumerate(getattr(config, "layer_types", None) or []):
        _require(f"layer_types at block {layer}", kind, (_FULL,))
    windows: Windows = (None,) * config.num_hidden_layers
    return windows


def _one_window(config: Any) -> Windows:
    """The same window in all blocks, if there is one."""
    _require("layer_types", getattr(config, "layer_types", None), (None,))
    windows: Windows = (config.sliding_window,) * config.num_hidden_layers
    return windows


def _windows_by_layer(config: Any) -> Windows:
    """A window in the blocks that are said to slide."""
    return tuple(_window_of(config, layer, kind) for layer, kind in enumerate(config.layer_types))


def _window_of(config: Any, layer: int, kind: str) -> int | None:
    _require(f"layer_types at block {layer}", kind, (_SLIDING, _FULL))
    if kind == _FULL:
        return None
    window = config.sliding_window if getattr(config, "use_sliding_window", True) else None
    if window is None:
        raise ModelError(f"sliding_window: expected a number for block {layer}, got None")
    return int(window)


def _one_base(config: Any) -> Bases:
    bases: Bases = ("",) * config.num_hidden_layers
    return bases


def _bases_but_some(config: Any) -> Bases:
    """1 in `no_rope_layers` means that a block has a rotary embedding."""
    return tuple("" if has_rope else None for has_rope in config.no_rope_layers)


def _bases_by_kind(config: Any) -> Bases:
    return tuple(config.layer_types)


_FULL, _SLIDING = "full_attention", "sliding_attention"
FAMILIES: dict[str, Family] = {
    "gemma3_text": Family(
        windows=_windows_by_layer,
        bases=_bases_by_kind,
        rope_types=("default", "linear"),
        norm_offset=1.0,
        read_block=read_sandwiched_block,
    ),
    "llama": Family(windows=_no_windows, bases=_one_base, read_block=read_gated_block),
    "mistral": Family(windows=_one_window, bases=_one_base, read_block=read_gated_block),
    "phi3": Family(
        windows=_one_window,
        bases=_one_base,
        knows=frozenset({"partial_rotary_factor"}),
        rope_types=("default", "longrope"),
        read_block=read_joined_block,
    ),
    "qwen2": Family(windows=_windows_by_layer, bases=_one_base, read_block=read_gated_block),
    "qwen3": Family(windows=_windows_by_layer, bases=_one_base, read_block=read_gated_block),
    "smollm3": Family(
        windows=_windows_by_layer,
        bases=_bases_but_some,
        knows=frozenset({"no_rope_layers"}),
        read_block=read_gated_block,
    ),
}

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
    "use_bidirectional_attention": (None, False),
    "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False),
    "quantization_config": (None,),
}
"""Configuration keys and the values at which they change nothing the seam relies on."""
_ROPE_KEYS = frozenset({
    "rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings",
    "low_freq_factor", "high_freq_factor", "attention_factor", "beta_fast", "beta_slow", "mscale",
    "mscale_all_dim", "truncate", "partial_rotary_factor", "short_factor", "long_factor",
})  # fmt: skip
_LONGROPE = "longrope"


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
        windows, bases = family.windows(config), family.bases(config)
        _require("blocks", len(windows), (config.num_hidden_layers,))
        _require("blocks with positions", len(bases), (config.num_hidden_layers,))
        for key, neutral in _NEUTRAL.items():
            if key not in family.knows:
                _require(key, getattr(config, key, None), neutral)
        for base in sorted({base for base in bases if base is not None}):
            _check_rotary(family, _rope_parameters(config, base))
    except ModelError as error:
        raise ModelError(f"model {name} would be answered for wrongly: {error}") from None


def read_windows(config: Any) -> Windows:
    """Of every block of a checked model."""
    return FAMILIES[config.model_type].windows(config)


def read_bases(config: Any) -> Bases:
    """Of every block of a checked model."""
    return FAMILIES[config.model_type].bases(config)


def read_max_positions(config: Any) -> int:
    """Tokens in the window of a checked model.

    Beyond its original length longrope turns all keys otherwise, also those that were computed
    before; so its window ends there.
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    if parameters.get("rope_type") == _LONGROPE:
        return int(parameters["original_max_position_embeddings"])
    return int(config.max_position_embeddings)


def activation_of(config: Any) -> str:
    """Name of the activation between the gated layers."""
    return str(getattr(config, "hidden_act", None) or config.hidden_activation)


def block_reader(config: Any) -> BlockReader | None:
    """How `FusedDecoder` reads the blocks of a checked model; None if it cannot run them."""
    is_known = activation_of(config) in ACTIVATIONS
    return FAMILIES[config.model_type].read_block if is_known else None


def _rope_parameters(config: Any, base: str) -> dict[str, Any]:
    """Of the blocks that take their frequencies from a kind of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    return (parameters.get(base) or {}) if base else parameters


def _check_rotary(family: Family, parameters: dict[str, Any]) -> None:
    kind = parameters.get("rope_type", "default")
    if kind not in family.rope_types:
        raise ModelError(
            f"rope_type: expected one of {', '.join(family.rope_types)}, got {kind!r}, whose "
            f"frequencies may differ between layers or with a prompt's length"
        )
    if unknown := sorted(parameters.keys() - _ROPE_KEYS):
        raise ModelError(f"rope_parameters: {unknown[0]} is not known here")
    key = "partial_rotary_factor"
    if key not in family.knows:
        _require(key, parameters.get(key), _NEUTRAL[key])


def _require(key: str, value: Any, neutral: tuple[Any, ...]) -> None:
    if value not in neutral:
        shown = type(value).__name__ if isinstance(value, dict | list) else repr(value)
        raise ModelError(f"{key}: expected {neutral[-1]}, got {shown[:80]}")
