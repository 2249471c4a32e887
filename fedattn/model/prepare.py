"""Turning any model source, once, into a folder that loads in a moment.

A prepared folder holds config, tokenizer, weights as they are computed with (so that processes
share them through the page cache) and `fedattn.json` with the fingerprint. Weights that come in
blocks of a few bits stay in these, in the folder `stored`; others are float32.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
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
from fedattn.model.weights.choice import FLOAT32_WEIGHTS, STORED_WEIGHTS, Weights
from fedattn.model.weights.gguf_file import NotInBlocksError, read_gguf
from fedattn.model.weights.network import bring_to_blocks, empty_network, float_network
from fedattn.model.weights.stored import BLOCKS_FILE, StoredTensors, write_tensors
from fedattn.model.weights.written import note_written, require_whole

RECORD_NAME = "fedattn.json"
FORMAT_VERSION = 4
_FLOATS_FILE = "model.safetensors"

log = logging.getLogger(__name__)

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
        ModelError: it cannot be found, is of another family, cannot be read, changes meanwhile, or
            the cache folder cannot be written.
    """
    if (record := _read_record(path_of(model))) is not None:
        return record
    source = resolve_source(model)
    identity = source.identity()
    folder = _folder_of(source, identity, cache_dir)
    if (record := _read_record(folder)) is not None:
        return record
    with claimed(folder):
        return _read_record(folder) or _convert(source, identity, folder, progress)


def find_prepared(model: str, *, cache_dir: Path | None = None) -> PreparedModel | None:
    """What `prepare_model` did before; None if it has still to be done.

    Raises:
        ModelError: as `prepare_model`, without looking into weights.
    """
    if (record := _read_record(path_of(model))) is not None:
        return record
    source = resolve_source(model)
    return _read_record(_folder_of(source, source.identity(), cache_dir))


def _folder_of(source: ModelSource, identity: str, cache_dir: Path | None) -> Path:
    key = hashlib.sha256(f"{FORMAT_VERSION}:{identity}".encode()).hexdigest()[:12]
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


def _convert(source: ModelSource, identity: str, folder: Path, progress: Progress) -> PreparedModel:
    """Write the folder of a source; its record last, if the source is still what it was."""
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
    network, blocks = _read_weights(files, config)
    _end_at(network, end_of_turn(tokenizer))
    prepared = PreparedModel(path=folder, fingerprint=fingerprint, name=source.name)
    progress("writing safetensors")
    with written_at_once(folder) as staging:
        if blocks is None:
            _save_network(network, staging)
        else:
            _save_config(network, staging)
            (staging / STORED_WEIGHTS.name).mkdir()
            write_tensors(blocks, staging / STORED_WEIGHTS.name / BLOCKS_FILE)
        tokenizer.save_pretrained(staging)
        if source.identity() != identity:  # weights may not be those of the fingerprint
            raise ModelError(f"model {source.name} changed while it was read; try again")
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


def _read_weights(files: ModelFiles, config: Any) -> tuple[Any, StoredTensors | None]:
    """A network, and its weights in blocks if the source has them; else the network has them."""
    if files.location.is_file():
        network = empty_network(files, config)
        with files.reading("weights"):
            try:
                return network, read_gguf(files.location, network)
            except NotInBlocksError as error:
                log.warning("weights of %s become float32: %s", files.name, error)
    return files.network(torch.float32), None


def has_stored_blocks(prepared: PreparedModel) -> bool:
    """Whether its source has weights in blocks."""
    return (prepared.path / STORED_WEIGHTS.name).is_dir()


def weights_folder(prepared: PreparedModel, weights: Weights) -> Path:
    """Weights in one form, which processes map and share.

    Made beside those of the preparation when first asked for, by one process while others wait;
    where that may not be written, or there is no room, those are the answer, and every process
    converts them for itself.

    Raises:
        ModelError: those of the preparation cannot be read.
    """
    folder = prepared.path / weights.name
    if folder.is_dir():
        return folder
    is_prepared = weights == STORED_WEIGHTS or (
        weights == FLOAT32_WEIGHTS and not has_stored_blocks(prepared)
    )
    if is_prepared or not os.access(prepared.path, os.W_OK):
        return prepared.path
    with ExitStack() as claim:
        try:
            claim.enter_context(claimed(folder))
        except ModelError:
            return prepared.path
        if not folder.is_dir():
            network = read_network(prepared, weights.dtype)
            with suppress(ModelError):
                _write_weights(network, weights, folder)
    return folder if folder.is_dir() else prepared.path


def _write_weights(network: Any, weights: Weights, folder: Path) -> None:
    with written_at_once(folder) as staging:
        form = weights.made_format
        if form is None:
            _save_network(network, staging)
        else:
            write_tensors(bring_to_blocks(network, form), staging / BLOCKS_FILE)


def read_network(prepared: PreparedModel, dtype: torch.dtype) -> Any:
    """The network with float weights, from those of the preparation.

    Raises:
        ModelError: they cannot be read.
    """
    files = prepared_files(prepared)
    if not has_stored_blocks(prepared):
        return read_floats(files, dtype)
    stored = replace(files, location=prepared.path / STORED_WEIGHTS.name)
    network = float_network(stored, empty_network(files, files.config(), dtype), dtype)
    network.generation_config = files.generation_config()
    return network


def read_floats(files: ModelFiles, dtype: torch.dtype) -> Any:
    """The network in a folder of float weights that was made here.

    Raises:
        ModelError: they cannot be read, or are no longer what was written.
    """
    with files.reading("weights"):
        require_whole(files.location / _FLOATS_FILE)
    return files.network(dtype)


def _save_config(network: Any, folder: Path) -> None:
    vars(network.config).pop("quantization_config", None)  # GGUF: blocks, or dequantized
    network.config.save_pretrained(folder)
    network.generation_config.save_pretrained(folder)


def _save_network(network: Any, folder: Path) -> None:
    """Config and weights, for `read_floats`; every tensor once, the loader ties heads again."""
    _save_config(network, folder)
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in network.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.contiguous()
    save_file(tensors, folder / _FLOATS_FILE, metadata={"format": "pt"})
    note_written(folder / _FLOATS_FILE)


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
