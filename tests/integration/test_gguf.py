"""GGUF files of other families: read as they were written, or refused by what would be dropped."""

from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFWriter
from transformers.modeling_gguf_pytorch_utils import TensorProcessor, get_gguf_hf_weights_map

from fedattn.core.errors import ModelError
from fedattn.model.files import ModelFiles
from fedattn.model.loading import wrap_model
from tests.harness.tiny import tiny_network

ARCHITECTURES = {"gemma3_text": "gemma3", "mistral": "llama"}
GEMMA: dict[str, Any] = {
    "head_dim": 64,
    "query_pre_attn_scalar": 256,
    "layer_types": ["sliding_attention"] * 5,
    "rope_parameters": None,
    "sliding_window": 8,
}
PHI: dict[str, Any] = {
    "max_position_embeddings": 256,
    "partial_rotary_factor": 1.0,
    "rope_parameters": {"rope_theta": 1e4},
    "sliding_window": None,
}
LLAMA3: dict[str, Any] = {
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
}
READ: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {"head_dim": 128},
    "gemma3_text": GEMMA,
    "phi3": PHI,
    "llama": LLAMA3,
}


def files_of(path: Path) -> ModelFiles:
    return ModelFiles(name="m", location=path, remedy="get another")


def write_gguf(path: Path, family: str, network: Any, **fields: Any) -> None:
    """A file as converters of llama.cpp write it; norms of Gemma with their one added."""
    config, name = network.config, ARCHITECTURES.get(family, family)
    writer = GGUFWriter(path, name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    base = (config.rope_parameters or {}).get("rope_theta", 1e6)
    writer.add_rope_freq_base(base)
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
    by_gguf = get_gguf_hf_weights_map(network, TensorProcessor())
    weights = network.state_dict()
    for gguf_name, own in by_gguf.items():
        offset = float(family == "gemma3_text" and "norm" in own)
        values = (weights[own] + offset).numpy()
        if family == "llama" and own.endswith(("q_proj.weight", "k_proj.weight")):
            values = in_pairs(values, config.hidden_size // config.num_attention_heads)
        writer.add_tensor(gguf_name, values)
    if config.rope_parameters and config.rope_parameters.get("rope_type") == "llama3":
        plain = 5e5 ** -(torch.arange(0, 4) / 4)
        writer.add_tensor("rope_freqs.weight", (plain / network.model.rotary_emb.inv_freq).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def in_pairs(weights: Any, size: int) -> Any:
    """Rows of heads as files of Llama have them: scalars that turn together beside each other."""
    heads = weights.reshape(-1, 2, size // 2, weights.shape[1])
    return heads.swapaxes(1, 2).reshape(weights.shape)


@pytest.mark.parametrize("family", READ)
def test_a_file_is_read_as_it_was_written(family: str, tmp_path: Path) -> None:
    network: Any = tiny_network(family, **READ[family])
    write_gguf(tmp_path / "m.gguf", family, network)
    files = files_of(tmp_path / "m.gguf")
    wrap_model(network, "0" * 64)  # whatever is refused of the one is of the other
    read = files.network(torch.float32)
    assert files.config().model_type == family
    ids = torch.arange(20)[None]
    plain: Any = tiny_network(family, **READ[family])
    with torch.inference_mode():
        torch.testing.assert_close(read(ids).logits, plain(ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("family", "settings", "fields", "said"),
    [
        ("llama", {}, {"rope__scaling__type": "yarn"}, "rope.scaling.type .*, yarn"),
        ("gemma3_text", GEMMA, {"rope__scaling__factor": 8.0}, "rope.scaling.factor .*, 8.0"),
        ("phi3", PHI, {"attention__sliding_window": 31}, "attention.sliding_window .*, 31"),
        ("phi3", PHI, {"rope__dimension_count": 4}, "rope.dimension_count .*, 4"),
        ("qwen3", {}, {}, "attention.key_length .*, 8, .* expected 128"),
        ("gemma3_text", GEMMA, {"rope__freq_base_swa": 5e5}, "rope.freq_base_swa .*, 500000.0"),
        ("llama", {}, {"expert_count": 8}, "expert_count .*, 8"),
    ],
)
def test_what_would_be_dropped_is_refused_by_name(
    family: str, settings: dict[str, Any], fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    network = tiny_network(family, **settings)
    write_gguf(tmp_path / "m.gguf", family, network, **fields)
    with pytest.raises(ModelError, match=said):
        files_of(tmp_path / "m.gguf").config()


def test_rotary_frequencies_of_no_known_scaling_are_refused(tmp_path: Path) -> None:
    write_scaled(tmp_path / "m.gguf")
    with pytest.raises(ModelError, match=r"rope_freqs\.weight of the GGUF file, scaled RoPE"):
        files_of(tmp_path / "m.gguf").config()


def write_scaled(path: Path) -> None:
    """The beginning of a file of Llama 3.2."""
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(5)
    writer.add_tensor("rope_freqs.weight", torch.tensor([1.0, 3.0, 2.0, 7.0]).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
