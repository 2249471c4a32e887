"""Tensors of a GGUF file as they are stored, under the names that transformers has for them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedattn.model.weights.formats import BlockFormat
from fedattn.model.weights.matrix import BlocksMatrix
from fedattn.model.weights.stored import StoredTensors

_BY_ROWS = frozenset({"TensorProcessor", "LlamaTensorProcessor", "Gemma2TensorProcessor"})
"""What transformers does to tensors of a file that moves whole rows of matrices, or only norms."""


class NotInBlocksError(Exception):
    """Weights of a file that cannot be used as they are stored."""


def read_gguf(path: Path, network: Any) -> StoredTensors:
    """Map a GGUF file.

    Files of the Llama family have the rows of queries and keys in another order; these are copied.

    Args:
        path: the file.
        network: of transformers, for its names; on any device.

    Raises:
        NotInBlocksError: nothing in it is in blocks, or a network of this family is laid out
            in other ways than whole rows.
    """
    from gguf import GGUFReader  # noqa: PLC0415 - only to prepare a model
    from transformers.modeling_gguf_pytorch_utils import (  # noqa: PLC0415
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    config = network.config
    reader = GGUFReader(path)
    processor = TENSOR_PROCESSORS.get(_architecture(reader), TensorProcessor)(config.to_dict())
    if type(processor).__name__ not in _BY_ROWS:
        raise NotInBlocksError(f"blocks of family {config.model_type} are laid out differently")
    names = get_gguf_hf_weights_map(network, processor)
    matrices: dict[str, BlocksMatrix] = {}
    floats: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        name = names.get(tensor.name)
        if name is None:
            if tensor.name == "rope_freqs.weight":
                continue
            raise NotInBlocksError(f"{tensor.name} has no place in the network")
        form = _format(tensor)
        if form is not None and tensor.data.ndim == 2:
            blocks = processor.process(weights=tensor.data, name=tensor.name).weights
            matrices[name] = BlocksMatrix(form, _as_torch(blocks))
        else:
            values = _floats(tensor)
            floats[name] = _as_torch(processor.process(weights=values, name=tensor.name).weights)
    if not matrices:
        raise NotInBlocksError("the file has no weights in blocks")
    return StoredTensors(matrices=matrices, floats=floats)


def expand_slowly(matrix: BlocksMatrix) -> torch.Tensor:
    """[out, in] float32, by numpy: for where ggml is not."""
    from gguf import GGMLQuantizationType, dequantize  # noqa: PLC0415 - only to convert weights

    blocks = matrix.blocks.numpy()
    return _as_torch(dequantize(blocks, GGMLQuantizationType(matrix.form.number)))


def _architecture(reader: Any) -> str:
    return str(reader.fields["general.architecture"].contents())


def _format(tensor: Any) -> BlockFormat | None:
    number = int(tensor.tensor_type)
    return next((form for form in BlockFormat if form.number == number), None)


def _floats(tensor: Any) -> Any:
    """Its values, float32."""
    from gguf import dequantize  # noqa: PLC0415 - only to prepare a model

    return np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)


def _as_torch(values: Any) -> torch.Tensor:
    array = np.ascontiguousarray(values)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
