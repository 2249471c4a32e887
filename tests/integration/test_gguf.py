"""GGUF files of other families: read as they were written, or refused by what would be dropped."""

from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFWriter

from fedattn.core.errors import ModelError
from fedattn.model.files import ModelFiles
from fedattn.model.loading import wrap_model
from tests.harness.gguf_files import write_gguf
from tests.harness.tiny import tiny_network

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
