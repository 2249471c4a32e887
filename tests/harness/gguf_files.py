"""GGUF files of tiny models, as converters of llama.cpp write them."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers.modeling_gguf_pytorch_utils import TensorProcessor, get_gguf_hf_weights_map

ARCHITECTURES = {"gemma3_text": "gemma3", "mistral": "llama"}


def write_gguf(
    path: Path,
    family: str,
    network: Any,
    kind: gguf.GGMLQuantizationType | None = None,
    **fields: Any,
) -> None:
    """Write a network; norms of Gemma with their one added.

    Args:
        path: of the file.
        family: of the network.
        network: of transformers, float32.
        kind: what matrices are brought to; None for float32.
        fields: more keys of the architecture, `__` for a dot.
    """
    config, name = network.config, ARCHITECTURES.get(family, family)
    writer = gguf.GGUFWriter(path, name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base((config.rope_parameters or {}).get("rope_theta", 1e6))
    writer.add_vocab_size(config.vocab_size)
    writer.add_pad_token_id(0)
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if family == "gemma3_text":
        writer.add_sliding_window(config.sliding_window)
    for key, value in fields.items():
        add = writer.add_string if isinstance(value, str) else writer.add_float32
        (writer.add_uint32 if isinstance(value, int) else add)(
            f"{name}.{key.replace('__', '.')}", value
        )
    weights = network.state_dict()
    for gguf_name, own in get_gguf_hf_weights_map(network, TensorProcessor()).items():
        offset = float(family == "gemma3_text" and "norm" in own)
        values = (weights[own] + offset).numpy()
        if family == "llama" and (".q_proj." in own or ".k_proj." in own):
            values = _in_pairs(values, config.hidden_size // config.num_attention_heads)
        if kind is None or values.ndim == 1:
            writer.add_tensor(gguf_name, values)
        else:
            writer.add_tensor(gguf_name, gguf.quantize(values, kind), raw_dtype=kind)
    if config.rope_parameters and config.rope_parameters.get("rope_type") == "llama3":
        plain = 5e5 ** -(torch.arange(0, 4) / 4)
        writer.add_tensor("rope_freqs.weight", (plain / network.model.rotary_emb.inv_freq).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _in_pairs(weights: Any, size: int) -> Any:
    """Rows of heads as files of Llama have them: scalars that turn together beside each other."""
    heads = weights.reshape(-1, 2, size // 2, *weights.shape[1:])
    return np.ascontiguousarray(heads.swapaxes(1, 2).reshape(weights.shape))
