"""Where a model computes, and in which precision."""

import torch

from fedattn.core.errors import ConfigurationError

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
