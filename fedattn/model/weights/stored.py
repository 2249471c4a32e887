"""The file of weights in blocks: a safetensors file, which processes map and share.

A tensor in blocks is [out, bytes] uint8, and the file's metadata say of which format it is; all
others are float32.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fedattn.model.weights.formats import BlockFormat
from fedattn.model.weights.matrix import BlocksMatrix
from fedattn.model.weights.written import note_written, require_whole

BLOCKS_FILE = "blocks.safetensors"
_KIND = "fedattn-blocks-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensors:
    """Tensors of a network by the names that it has for them.

    Attributes:
        matrices: those in blocks.
        floats: the others, float32.
    """

    matrices: Mapping[str, BlocksMatrix]
    floats: Mapping[str, torch.Tensor]


def write_tensors(tensors: StoredTensors, path: Path) -> None:
    """Write the file, and what `read_tensors` compares it with.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    forms = {name: matrix.form.name for name, matrix in tensors.matrices.items()}
    blocks = {name: matrix.blocks for name, matrix in tensors.matrices.items()}
    save_file(
        blocks | dict(tensors.floats), path, metadata={"kind": _KIND, "forms": json.dumps(forms)}
    )
    note_written(path)


def read_tensors(path: Path) -> StoredTensors:
    """Map the file; sizes are checked against its length before anything is.

    Raises:
        OSError, SafetensorError, ValueError, KeyError: it is damaged, or none of ours.
    """
    require_whole(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("kind") != _KIND:
            raise ValueError(f"expected {_KIND}, got {str(metadata.get('kind'))[:40]}")
        forms = json.loads(metadata["forms"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    matrices = {
        name: BlocksMatrix(BlockFormat[form], tensors.pop(name)) for name, form in forms.items()
    }
    for name, matrix in matrices.items():
        if matrix.blocks.dtype != torch.uint8 or matrix.blocks.ndim != 2:
            raise ValueError(f"{name} is {matrix.blocks.dtype}, expected rows of blocks")
        matrix.form.row_weights(matrix.blocks.shape[1])
    return StoredTensors(matrices=matrices, floats=tensors)
