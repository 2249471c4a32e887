"""Turning any model source, once, into a folder that loads in a moment.

A prepared folder holds config, tokenizer, weights in the compute precision (so that processes
share them through the page cache) and `fedattn.json` with the fingerprint.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from fedattn.core.errors import ModelError
from fedattn.model.families import check_config
from fedattn.model.fingerprint import fingerprint_model
from fedattn.model.source import ModelSource, SourceKind, resolve_source

RECORD_NAME = "fedattn.json"
FORMAT_VERSION = 2

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedModel:
    """A folder that `load_model` reads.

    Attributes:
        path: the folder.
        fingerprint: hex SHA-256 over config and source weights.
        name: what the user called it.
    """

    path: Path
    fingerprint: str
    name: str


def default_cache_dir() -> Path:
    """`FEDATTN_CACHE`, or `~/.cache/fedattn`."""
    configured = os.environ.get("FEDATTN_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "fedattn"


def prepare_model(
    model: str, *, cache_dir: Path | None = None, progress: Progress = lambda _: None
) -> PreparedModel:
    """Resolve and convert a model; does nothing if that was done before.

    Args:
        model: see `resolve_source`.
        cache_dir: where prepared folders live, None for `default_cache_dir()`.
        progress: told in a few words what goes on.

    Raises:
        ModelError: it cannot be found, is of another family, or cannot be read.
    """
    if (record := _read_record(Path(model))) is not None:
        return record
    source = resolve_source(model)
    key = hashlib.sha256(f"{FORMAT_VERSION}:{source.identity()}".encode()).hexdigest()[:12]
    slug = re.sub(r"[^\w.-]+", "-", source.name)
    folder = (cache_dir or default_cache_dir()) / "models" / f"{slug}-{key}"
    if (record := _read_record(folder)) is not None:
        return record
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        return _read_record(folder) or _convert(source, folder, progress)


def _read_record(folder: Path) -> PreparedModel | None:
    try:
        record = json.loads((folder / RECORD_NAME).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / RECORD_NAME} is damaged; delete {folder}") from error
    if not isinstance(record, dict) or not {"fingerprint", "name"} <= record.keys():
        raise ModelError(f"{folder / RECORD_NAME} is damaged; delete {folder}")
    if record.get("format") != FORMAT_VERSION:
        raise ModelError(
            f"{folder} was prepared by another version of this program (format "
            f"{record.get('format', 1)}, expected {FORMAT_VERSION}); prepare the model again from "
            f"its source: fedattn model prepare MODEL"
        )
    return PreparedModel(path=folder, fingerprint=record["fingerprint"], name=record["name"])


def _convert(source: ModelSource, folder: Path, progress: Progress) -> PreparedModel:
    progress(f"preparing {source.name}, once; later starts take it from {folder.parent}")
    location = _fetch(source, progress)
    options: dict[str, Any] = {}
    if source.kind is SourceKind.GGUF:
        options["gguf_file"] = location.name
        location = location.parent
    try:
        config = AutoConfig.from_pretrained(location, **options)
        check_config(config, source.name)
        progress("fingerprinting")
        fingerprint = fingerprint_model(config, source.path or location)
        progress("reading the tokenizer")
        tokenizer = AutoTokenizer.from_pretrained(location, **options)
        progress("reading the weights")
        network = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32, **options)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"model {source.name} cannot be read: {error}") from error
    prepared = PreparedModel(path=folder, fingerprint=fingerprint, name=source.name)
    progress("writing safetensors")
    with _written_at_once(folder) as staging:
        _save_network(network, staging)
        tokenizer.save_pretrained(staging)
        record = asdict(prepared) | {"path": None, "format": FORMAT_VERSION}
        (staging / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n")
    progress("ready")
    return prepared


def weights_folder(prepared: PreparedModel, dtype: torch.dtype) -> Path:
    """Config and weights in a precision, which processes map and share.

    Made beside the float32 ones when first asked for; where that may not be written, the float32
    ones are the answer, and every process converts them for itself.
    """
    folder = prepared.path / str(dtype).removeprefix("torch.")
    if dtype == torch.float32 or not os.access(prepared.path, os.W_OK):
        return folder if folder.is_dir() else prepared.path
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            network = AutoModelForCausalLM.from_pretrained(
                prepared.path, dtype=dtype, local_files_only=True
            )
            with _written_at_once(folder) as staging:
                _save_network(network, staging)
    return folder


@contextmanager
def _written_at_once(folder: Path) -> Iterator[Path]:
    """A folder beside it to write into, which takes its name at the end."""
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".preparing-"))
    try:
        yield staging
        shutil.rmtree(folder, ignore_errors=True)  # left by an interrupted run
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _save_network(network: Any, folder: Path) -> None:
    """Config and weights; every tensor once, tied heads are restored by the loader."""
    vars(network.config).pop("quantization_config", None)  # GGUF: dequantized while loading
    network.config.save_pretrained(folder)
    network.generation_config.save_pretrained(folder)
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in network.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _fetch(source: ModelSource, progress: Progress) -> Path:
    if source.path is not None:
        return source.path
    progress(f"fetching {source.name} from the hub")
    patterns = ["*.json", "*.safetensors", "*.jinja", "tokenizer*", "merges.txt"]
    try:
        return Path(snapshot_download(source.name, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"model {source.name} cannot be fetched from the hub: {type(error).__name__}; "
            f"check the name and the network, or give a local folder"
        ) from error
