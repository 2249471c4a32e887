"""Turning any model source, once, into a folder that loads in a moment.

A prepared folder holds config, tokenizer, weights in the compute precision (so that processes
share them through the page cache) and `fedattn.json` with the fingerprint.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import save_file

from fedattn.core.errors import ModelError
from fedattn.model.files import ModelFiles
from fedattn.model.fingerprint import fingerprint_model
from fedattn.model.source import ModelSource, path_of, resolve_source
from fedattn.model.store import claimed, default_cache_dir, written_at_once
from fedattn.model.template import end_of_turn

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


def prepare_model(
    model: str, *, cache_dir: Path | None = None, progress: Progress = lambda _: None
) -> PreparedModel:
    """Resolve and convert a model; does nothing if that was done before.

    Args:
        model: see `resolve_source`.
        cache_dir: where prepared folders live, None for `default_cache_dir()`.
        progress: told in a few words what goes on.

    Raises:
        ModelError: it cannot be found, is of another family, cannot be read, or the cache folder
            cannot be written.
    """
    if (record := _read_record(path_of(model))) is not None:
        return record
    source = resolve_source(model)
    folder = _folder_of(source, cache_dir)
    if (record := _read_record(folder)) is not None:
        return record
    with claimed(folder):
        return _read_record(folder) or _convert(source, folder, progress)


def find_prepared(model: str, *, cache_dir: Path | None = None) -> PreparedModel | None:
    """What `prepare_model` did before; None if it has still to be done.

    Raises:
        ModelError: as `prepare_model`, without looking into weights.
    """
    if (record := _read_record(path_of(model))) is not None:
        return record
    return _read_record(_folder_of(resolve_source(model), cache_dir))


def _folder_of(source: ModelSource, cache_dir: Path | None) -> Path:
    key = hashlib.sha256(f"{FORMAT_VERSION}:{source.identity()}".encode()).hexdigest()[:12]
    slug = re.sub(r"[^\w.-]+", "-", source.name)
    return (cache_dir or default_cache_dir()) / "models" / f"{slug}-{key}"


def _read_record(folder: Path) -> PreparedModel | None:
    """What is known of a prepared folder; None if it is none."""
    path = folder / RECORD_NAME
    try:
        content = path.read_bytes()
    except PermissionError as error:
        raise ModelError(f"{path} cannot be read; let this user read {folder}") from error
    except (OSError, ValueError):  # no such file, or no name of a file at all
        return None
    try:
        record = json.loads(content)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not all(
        isinstance(record.get(key), str) for key in ("fingerprint", "name")
    ):
        raise ModelError(f"{path} is damaged; delete {folder}")
    if record.get("format") != FORMAT_VERSION:
        raise ModelError(
            f"{folder} was prepared by another version of this program (format "
            f"{record.get('format', 1)}, expected {FORMAT_VERSION}); prepare the model again from "
            f"its source: fedattn model prepare MODEL"
        )
    return PreparedModel(path=folder, fingerprint=record["fingerprint"], name=record["name"])


def _convert(source: ModelSource, folder: Path, progress: Progress) -> PreparedModel:
    progress(f"preparing {source.name}, once; later starts take it from {folder.parent}")
    files = ModelFiles(
        name=source.name,
        location=_fetch(source, progress),
        remedy="get its files again, or name another model",
    )
    config = files.config()
    progress("fingerprinting")
    with files.reading("weights"):
        fingerprint = fingerprint_model(config, files.location)
    progress("reading the tokenizer")
    tokenizer = files.tokenizer()
    progress("reading the weights")
    network = files.network(torch.float32)
    _end_at(network, end_of_turn(tokenizer))
    prepared = PreparedModel(path=folder, fingerprint=fingerprint, name=source.name)
    progress("writing safetensors")
    with written_at_once(folder) as staging:
        _save_network(network, staging)
        tokenizer.save_pretrained(staging)
        record = asdict(prepared) | {"path": None, "format": FORMAT_VERSION}
        (staging / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n")
    progress("ready")
    return prepared


def _end_at(network: Any, token: int | None) -> None:
    """Let answers end at a token too: not every model's files name what its template ends with."""
    ends = network.generation_config.eos_token_id
    known = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    if token is not None and token not in known:
        network.generation_config.eos_token_id = [*known, token]


def prepared_files(prepared: PreparedModel, folder: Path | None = None) -> ModelFiles:
    """Files of a prepared model, or of a copy in another precision below it."""
    location = folder or prepared.path
    return ModelFiles(
        name=prepared.name,
        location=location,
        remedy=f"delete {location} and prepare the model again",
    )


def weights_folder(prepared: PreparedModel, dtype: torch.dtype) -> Path:
    """Config and weights in a precision, which processes map and share.

    Made beside the float32 ones when first asked for; where that may not be written, or there is
    no room, the float32 ones are the answer, and every process converts them for itself.

    Raises:
        ModelError: the float32 ones cannot be read.
    """
    folder = prepared.path / str(dtype).removeprefix("torch.")
    if folder.is_dir():
        return folder
    if dtype == torch.float32 or not os.access(prepared.path, os.W_OK):
        return prepared.path
    network = prepared_files(prepared).network(dtype)
    with suppress(ModelError), claimed(folder):
        if not folder.is_dir():
            with written_at_once(folder) as staging:
                _save_network(network, staging)
    return folder if folder.is_dir() else prepared.path


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
    except Exception as error:  # a border: the network and the hub's own cache, by four libraries
        lines = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"model {source.name} cannot be fetched from the hub ({type(error).__name__}: "
            f"{lines[0][:200]}); check the name, the network and the room in the hub's cache "
            f"(HF_HOME), or give a local folder"
        ) from error
