"""Networks of transformers whose linear layers and embeddings are blocks."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from fedattn.core.errors import ModelError
from fedattn.model.files import ModelFiles
from fedattn.model.hugging_face import AutoModelForCausalLM, for_inference, no_init_weights
from fedattn.model.weights.formats import BlockFormat
from fedattn.model.weights.ggml import find_ggml, ggml
from fedattn.model.weights.gguf_file import expand_slowly
from fedattn.model.weights.matrix import BlocksMatrix
from fedattn.model.weights.modules import BlocksEmbedding, BlocksLinear
from fedattn.model.weights.stored import BLOCKS_FILE, StoredTensors, read_tensors

_EMBEDDING, _HEAD = "model.embed_tokens", "lm_head"


def empty_network(files: ModelFiles, config: Any, dtype: torch.dtype = torch.float32) -> Any:
    """A network whose matrices take no memory; what its code computes, such as angles, is there.

    All on the meta device would take 40 MiB for sympy, which torch's code for that imports.

    Args:
        files: where the configuration lies.
        config: of the model.
        dtype: of its weights.

    Raises:
        ModelError: transformers makes no network of this configuration.
    """
    with files.reading("config"), for_inference(), no_init_weights(), _MatricesOnMeta():
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def blocks_network(files: ModelFiles, network: Any) -> Any:
    """A network of mapped blocks.

    Args:
        files: the folder of the file of blocks.
        network: an empty one, which is filled.

    Raises:
        ModelError: the file is damaged, or not of this network.
        ConfigurationError: the kernels are not here.
    """
    ggml()
    with files.reading("weights"):
        tensors = read_tensors(files.location / BLOCKS_FILE)
        for name, matrix in tensors.matrices.items():
            if name != f"{_HEAD}.weight" or not network.config.tie_word_embeddings:
                _place(network, name, matrix)
        _fill(network, dict(tensors.floats), files)
    return network


def float_network(files: ModelFiles, network: Any, dtype: torch.dtype) -> Any:
    """As `blocks_network`, with all weights expanded; needs no kernels.

    Raises:
        ModelError: the file is damaged, or not of this network.
    """
    with files.reading("weights"):
        tensors = read_tensors(files.location / BLOCKS_FILE)
        floats = {name: value.to(dtype) for name, value in tensors.floats.items()}
        for name, matrix in tensors.matrices.items():  # float32 of one of them at a time
            whole = matrix.expand() if find_ggml() else expand_slowly(matrix)
            floats[name] = whole.to(dtype)
        _fill(network, floats, files)
    return network


def bring_to_blocks(network: Any, form: BlockFormat) -> StoredTensors:
    """Linear layers and embeddings of a float32 network in blocks; 8 bits where rows do not fit.

    Rows that are no multiple of 32 stay floats.
    """
    plain = {name: module for name, module in network.named_modules() if _is_plain(module)}
    tied = network.config.tie_word_embeddings
    matrices: dict[str, BlocksMatrix] = {}
    floats: dict[str, torch.Tensor] = {}
    for key, value in network.state_dict().items():
        name = key.removesuffix(".weight")
        if tied and name == _HEAD:
            continue
        chosen = _fitting(form, value.shape[-1], is_embedding=name in {_EMBEDDING, _HEAD})
        if name in plain and key.endswith(".weight") and chosen is not None:
            matrices[key] = BlocksMatrix(chosen, ggml().quantize(chosen, value.float()))
        else:
            floats[key] = value.float().contiguous()
    return StoredTensors(matrices=matrices, floats=floats)


def _fitting(form: BlockFormat, width: int, *, is_embedding: bool) -> BlockFormat | None:
    """What a row can be stored in; embeddings and heads keep 8 bits, as is usual in GGUF files."""
    if not is_embedding and width % form.block_size == 0:
        return form
    return None if width % BlockFormat.Q8_0.block_size else BlockFormat.Q8_0


def _is_plain(module: Any) -> bool:
    return type(module) is torch.nn.Linear or isinstance(module, torch.nn.Embedding)


def _place(network: Any, key: str, matrix: BlocksMatrix) -> None:
    """Blocks in place of a module's weights."""
    name = key.removesuffix(".weight")
    module = network.get_submodule(name)
    expected = tuple(module.weight.shape)
    if expected != (matrix.num_rows, matrix.width) or not _is_plain(module):
        raise ModelError(
            f"{key} is {[matrix.num_rows, matrix.width]}, expected {list(expected)} of a "
            f"{type(module).__name__}; prepare the model again"
        )
    if isinstance(module, torch.nn.Embedding):
        _put(
            network, name, BlocksEmbedding(matrix, float(getattr(module, "scalar_embed_scale", 1)))
        )
        if name == _EMBEDDING and network.config.tie_word_embeddings:
            _put(network, _HEAD, BlocksLinear(matrix))
    else:
        _put(network, name, BlocksLinear(matrix, module.bias))


def _fill(network: Any, floats: dict[str, torch.Tensor], files: ModelFiles) -> None:
    """Give the parameters that are left their values.

    Raises:
        ModelError: one has none, or there is one too many.
    """
    tied = {f"{_HEAD}.weight"} if network.config.tie_word_embeddings else set()
    wanted = dict(network.named_parameters())
    _require(files, "lack", sorted(wanted.keys() - floats.keys() - tied))
    _require(files, "have, against the config,", sorted(floats.keys() - wanted.keys() - tied))
    for key, value in floats.items():
        if key in wanted and value.shape != wanted[key].shape:
            raise ValueError(f"{key} is {list(value.shape)}, expected {list(wanted[key].shape)}")
        owner, _, attribute = key.rpartition(".")
        if key in wanted:
            parameter = torch.nn.Parameter(value, requires_grad=False)
            setattr(network.get_submodule(owner), attribute, parameter)
    if tied and isinstance(network.lm_head, torch.nn.Linear):
        network.lm_head.weight = network.get_submodule(_EMBEDDING).weight


def _require(files: ModelFiles, what: str, keys: list[str]) -> None:
    if keys:
        raise ModelError(
            f"weights of model {files.name} in {files.location} {what} {keys[0]} "
            f"({len(keys)} in all); {files.remedy}"
        )


def _put(network: Any, name: str, module: Any) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(owner), attribute, module)


class _MatricesOnMeta(TorchFunctionMode):
    """While it lasts, modules find no memory for the matrices that they make."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is torch.empty and given.get("device") is None:
            given["device"] = "meta"
        return func(*args, **given)
