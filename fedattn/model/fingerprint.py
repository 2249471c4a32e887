"""One number that tells whether two nodes hold the same model."""

import hashlib
import json
from pathlib import Path

from fedattn.core.errors import ModelError
from fedattn.model.hugging_face import PretrainedConfig
from fedattn.model.source import WEIGHT_SUFFIXES

_INDECISIVE_KEYS = frozenset({
    "_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "return_dict",
    "output_attentions", "output_hidden_states",
})  # fmt: skip
"""Where a model lies, what wrote it, and how it is run: never what it computes."""


def fingerprint_model(config: PretrainedConfig, location: Path) -> str:
    """Hash what decides the model's output.

    A configuration key that nobody thought of counts: two nodes that differ in it are told apart,
    which costs a session, where leaving it out would cost the answer.

    Args:
        config: of the model; all of it but what cannot change the mathematics.
        location: weight file, or folder of weight files.

    Returns:
        64 hex digits, SHA-256.

    Raises:
        ModelError: there are no weights.
    """
    digest = hashlib.sha256()
    settings = config.to_dict()
    decisive = {key: value for key, value in settings.items() if key not in _INDECISIVE_KEYS}
    digest.update(json.dumps(decisive, sort_keys=True, default=str).encode())
    files = [location] if location.is_file() else sorted(location.iterdir())
    weights = [file for file in files if file.suffix in WEIGHT_SUFFIXES]
    if not weights:
        raise ModelError(f"no weights ({', '.join(WEIGHT_SUFFIXES)}) in {location}")
    for file in weights:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
