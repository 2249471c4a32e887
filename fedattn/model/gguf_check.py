"""What a GGUF file asks for and transformers drops while reading it: restored, or refused by name.

Its reader knows a table of keys and leaves the others out without an error: scaled RoPE, windows,
the size of heads in some families. Such a file would load, and answer wrongly. The factors of Llama
3.1 and later are those of its configuration in other words, so they are put back there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedattn.core.errors import ModelError
from fedattn.core.types import FloatArray
from fedattn.model.families import read_windows

_LLAMA3_ROPE = "rope_freqs.weight"
"""What rotary frequencies are divided by, [D / 2], in Llama 3.1 and later."""
_SCALED_ROPE = ("rope_factors_long.weight", "rope_factors_short.weight")
"""The same of Phi-3 of 128k."""
_LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""The scaling of all Llamas from 3.1 on, but for its `factor`."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "rope.scaling.type": ("none",),
    "rope.scaling.factor": (0.0, 1.0),
    "attention.scale": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "embedding_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "logit_scale": (0.0, 1.0),
    "expert_count": (0,),
}
"""Keys that are dropped, and the values at which that changes nothing."""
_SLIDING = "sliding_attention"


@dataclass(frozen=True, slots=True)
class GgufHead:
    """What a file says besides its weights.

    Attributes:
        fields: values by key, without the prefix of the architecture.
        tensors: names of its tensors.
        rope_factors: what rotary frequencies are divided by, [D / 2] float32; None for nothing.
    """

    fields: Mapping[str, Any]
    tensors: frozenset[str]
    rope_factors: FloatArray | None = None


def read_head(path: Path) -> GgufHead:
    """Keys, names of tensors and factors of RoPE; reads no weights."""
    from gguf import GGUFReader  # noqa: PLC0415 - only who prepares a GGUF file needs it

    reader = GGUFReader(path)
    prefix = f"{reader.fields['general.architecture'].contents()}."
    fields = {
        key.removeprefix(prefix): field.contents()
        for key, field in reader.fields.items()
        if key.startswith(prefix)
    }
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    factors = tensors.get(_LLAMA3_ROPE)
    return GgufHead(
        fields,
        frozenset(tensors),
        None if factors is None else np.array(factors.data, dtype=np.float32),
    )


def restore_rope(head: GgufHead, config: Any) -> None:
    """Put the scaled RoPE of a Llama back into its configuration, if the factors are its own."""
    if head.rope_factors is None or config.model_type != "llama":
        return
    given = dict(config.rope_parameters or {})
    factor = float(head.rope_factors.max())
    scaled = {**given, **_LLAMA3, "factor": factor}
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    expected = _llama3_factors(scaled, size)
    if expected.shape == head.rope_factors.shape and np.allclose(
        expected, head.rope_factors, rtol=1e-3
    ):
        config.rope_parameters = scaled


def _llama3_factors(parameters: Mapping[str, Any], size: int) -> FloatArray:
    """[D / 2] float32, from 1 for high frequencies to the factor for low ones (Llama 3.1)."""
    length = parameters["original_max_position_embeddings"]
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    turns = length * parameters["rope_theta"] ** (-np.arange(0, size, 2) / size) / (2 * np.pi)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    factors: FloatArray = (1 / ((1 - smooth) / parameters["factor"] + smooth)).astype(np.float32)
    return factors


def check_gguf(head: GgufHead, config: Any, name: str) -> None:
    """Hold a file against the configuration that transformers made of it.

    Args:
        head: of the file.
        config: a checked one.
        name: of the model, for the message.

    Raises:
        ModelError: names what is dropped, its value and what is expected.
    """
    for tensor in _SCALED_ROPE:
        if tensor in head.tensors:
            raise _dropped(name, tensor, "scaled RoPE", "none")
    if head.rope_factors is not None and config.rope_parameters.get("rope_type") != "llama3":
        raise _dropped(name, _LLAMA3_ROPE, "scaled RoPE", "that of Llama 3.1")
    for key, neutral in _NEUTRAL.items():
        if head.fields.get(key, neutral[0]) not in neutral:
            raise _dropped(name, key, head.fields[key], neutral[-1])
    _check_sizes(head, config, name)
    _check_windows(head, config, name)
    _check_bases(head, config, name)


def _check_sizes(head: GgufHead, config: Any, name: str) -> None:
    """Heads must be as large as read, and turned as a whole."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        if head.fields.get(key, size) != size:
            raise _dropped(name, key, head.fields[key], size)


def _check_windows(head: GgufHead, config: Any, name: str) -> None:
    windows = read_windows(config)
    given = head.fields.get("attention.sliding_window") or None
    if given is not None and given < config.max_position_embeddings and given not in windows:
        raise _dropped(name, "attention.sliding_window", given, "none")
    pattern = head.fields.get("attention.sliding_window_pattern")
    if pattern is not None and pattern != [window is not None for window in windows]:
        raise _dropped(name, "attention.sliding_window_pattern", pattern, "none")


def _check_bases(head: GgufHead, config: Any, name: str) -> None:
    """The base of sliding blocks, which is not read but taken from the family."""
    key, of_blocks = "rope.freq_base_swa", (config.rope_parameters or {}).get(_SLIDING)
    base = head.fields.get(key)
    expected = of_blocks["rope_theta"] if of_blocks else head.fields.get("rope.freq_base")
    if base is not None and (expected is None or not math.isclose(base, expected)):
        raise _dropped(name, key, base, expected)


def _dropped(name: str, key: str, value: Any, expected: Any) -> ModelError:
    return ModelError(
        f"model {name} would be answered for wrongly: {key} of the GGUF file, {str(value)[:80]}, "
        f"is not read by transformers, expected {expected}; name the model's safetensors instead"
    )
