"""Where a model computes, in which form its weights are, and what decodes."""

import logging

import torch

from fedattn.core.errors import ConfigurationError
from fedattn.model.decode import MakeDecoder, TransformersDecoder
from fedattn.model.fused import DECODE_FORMATS, FLOAT32, INT8, FusedDecoder
from fedattn.model.graph_decoder import GraphDecoder
from fedattn.model.loading import LoadedModel
from fedattn.model.prepare import PreparedModel, has_stored_blocks
from fedattn.model.weights.choice import FLOAT32_WEIGHTS, STORED, STORED_WEIGHTS, Weights
from fedattn.model.weights.formats import MADE_HERE
from fedattn.model.weights.ggml import find_ggml, ggml

AUTO = "auto"
log = logging.getLogger(__name__)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BLOCKS = (STORED, *(form.name.lower() for form in MADE_HERE))
_CPU = torch.device("cpu")


def choose_device(name: str) -> torch.device:
    """The device a user means.

    Args:
        name: auto (a CUDA device if torch offers one, else the CPU), cpu, cuda or cuda:N.

    Raises:
        ConfigurationError: it is none of these, or torch does not offer it.
    """
    if name == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in {"cpu", "cuda"}:
        raise ConfigurationError(f"device: expected auto, cpu, cuda or cuda:N, got {name!r}")
    offered = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= offered:
        raise ConfigurationError(
            f"device {name}: torch {torch.__version__} offers {offered} CUDA devices; choose cpu "
            f"or auto, or install a torch built for this machine's CUDA"
        )
    return device


def choose_weights(name: str, prepared: PreparedModel, device: torch.device = _CPU) -> Weights:
    """The form of weights that a user means.

    Args:
        name: float32, bfloat16, float16; stored for blocks as in the source; q8_0, q4_0 or q4_k
            to bring weights to these; or auto: on a GPU float16, on a CPU stored where the source
            has blocks and ggml is installed, else float32.
        prepared: the model.
        device: where it computes.

    Raises:
        ConfigurationError: it is none of these, or does not fit model, device or machine.
    """
    if name == AUTO:
        return _best_weights(prepared, device)
    if name in _DTYPES:
        return Weights(dtype=_DTYPES[name])
    if name not in _BLOCKS:
        known = ", ".join((AUTO, *_DTYPES, *_BLOCKS))
        raise ConfigurationError(f"weights: expected one of {known}, got {name!r}")
    if device.type != "cpu":
        raise ConfigurationError(f"weights {name} compute on a CPU; set device to cpu")
    if name == STORED and not has_stored_blocks(prepared):
        raise ConfigurationError(
            f"weights {name}: the source of model {prepared.name} has floats; set weights to q8_0 "
            f"or float32"
        )
    ggml()
    return Weights(blocks=name)


def _best_weights(prepared: PreparedModel, device: torch.device) -> Weights:
    if device.type != "cpu":
        return Weights(dtype=torch.float16)
    if not has_stored_blocks(prepared):
        return FLOAT32_WEIGHTS
    if find_ggml() is None:
        log.warning(
            "weights of %s become float32, which takes several times the memory: the package "
            "libggml-python is not installed, or does not load here",
            prepared.name,
        )
        return FLOAT32_WEIGHTS
    return STORED_WEIGHTS


def choose_decoder(weights: str, model: LoadedModel) -> MakeDecoder:
    """What makes the decoder a user means; making it may take a second.

    Args:
        weights: float32, int8, or auto: on a CPU the model's own blocks if it has them, else int8
            if its layers are of a form that is known.
        model: the model.

    Raises:
        ConfigurationError: it is none of these, or does not fit the device or the model.
    """
    if weights not in {*DECODE_FORMATS, AUTO}:
        formats = ", ".join((AUTO, *DECODE_FORMATS))
        raise ConfigurationError(f"decode_weights: expected one of {formats}, got {weights!r}")
    hindrance = _hindrance_of_int8(model)
    if weights == INT8 and hindrance:
        raise ConfigurationError(f"decode_weights int8 {hindrance}, or decode_weights to float32")
    if _decodes_int8(weights, model):
        return lambda: FusedDecoder(model, INT8)
    if weights == AUTO and model.is_in_blocks and model.read_block is not None:
        return lambda: GraphDecoder(model)
    return lambda: TransformersDecoder(model)


def decoder_bytes(weights: str, model: LoadedModel) -> int:
    """About how many bytes the weights take that the decoder has beside those of the model."""
    sizes = model.sizes
    return sizes.weight_bytes // sizes.bytes_per_scalar if _decodes_int8(weights, model) else 0


def _decodes_int8(weights: str, model: LoadedModel) -> bool:
    return weights != FLOAT32 and not _hindrance_of_int8(model)


def _hindrance_of_int8(model: LoadedModel) -> str:
    """Why int8 weights cannot decode, and what to set; empty if they can."""
    if model.device.type != "cpu":
        return "needs a model on the CPU; set device to cpu"
    if model.is_in_blocks:
        return "would be a second copy of weights in blocks; set decode_weights to auto"
    if model.read_block is None:
        return "does not know this model's blocks; set model to another"
    return ""
