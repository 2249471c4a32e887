"""Where a model computes, in which precision, and what decodes."""

import torch

from fedattn.core.errors import ConfigurationError
from fedattn.model.decode import MakeDecoder, TransformersDecoder
from fedattn.model.fused import DECODE_FORMATS, FLOAT32, INT8, FusedDecoder
from fedattn.model.loading import LoadedModel

AUTO = "auto"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
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


def choose_dtype(name: str, device: torch.device = _CPU) -> torch.dtype:
    """The precision of weights and activations that a user means.

    Args:
        name: float32, bfloat16, float16, or auto: float16 on a GPU, float32 on a CPU.
        device: where it computes.

    Raises:
        ConfigurationError: it is none of these.
    """
    if name == AUTO:
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in _DTYPES:
        raise ConfigurationError(f"weights: expected auto, {', '.join(_DTYPES)}, got {name!r}")
    return _DTYPES[name]


def choose_decoder(weights: str, model: LoadedModel) -> MakeDecoder:
    """What makes the decoder a user means; making it may take a second.

    Args:
        weights: float32, int8, or auto: int8 if the model is on a CPU and has blocks it knows.
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
    if weights == FLOAT32 or hindrance:
        return lambda: TransformersDecoder(model)
    return lambda: FusedDecoder(model, INT8)


def _hindrance_of_int8(model: LoadedModel) -> str:
    """Why int8 weights cannot decode, and what to set; empty if they can."""
    if model.device.type != "cpu":
        return "needs a model on the CPU; set device to cpu"
    if model.read_block is None:
        return "does not know this model's blocks; set model to another"
    return ""
