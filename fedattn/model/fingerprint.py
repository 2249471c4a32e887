"""One number that tells whether two nodes hold the same model."""

import hashlib
import json
from pathlib import Path

from transformers import PretrainedConfig

from fedattn.core.errors import ModelError

_DECISIVE_KEYS = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act", "rms_norm_eps",
    "rope_parameters", "attention_bias", "mlp_bias", "tie_word_embeddings",
)  # fmt: skip
_WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".bin")


def fingerprint_model(config: PretrainedConfig, location: Path) -> str:
    """Hash what decides the model's output.

    Args:
        config: of the model; only what changes the mathematics counts.
        location: weight file, or folder of weight files.

    Returns:
        64 hex digits, SHA-256.
    """
    digest = hashlib.sha256()
    settings = config.to_dict()
    decisive = {key: settings.get(key) for key in _DECISIVE_KEYS}
    digest.update(json.dumps(decisive, sort_keys=True, default=str).encode())
    files = [location] if location.is_file() else sorted(location.iterdir())
    weights = [file for file in files if file.suffix in _WEIGHT_SUFFIXES]
    if not weights:
        raise ModelError(f"no weights ({', '.join(_WEIGHT_SUFFIXES)}) in {location}")
    for file in weights:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
