"""Linear layers packed for a few tokens at a time: float32 or int8."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import linear

from fedattn.model.weights.modules import BlocksLinear

Linear = Callable[[torch.Tensor], torch.Tensor]
"""[N, in] to [N, out], float32; what a row becomes depends on no other row but by rounding."""
Pack = Callable[[Sequence[Any]], Linear]
"""Linear layers that share their input to one whose outputs are side by side."""


def pack_float32(modules: Sequence[Any]) -> Linear:
    """The modules' own weights, without a copy if they are float32 or in blocks."""
    if any(isinstance(module, BlocksLinear) for module in modules):
        return lambda x: torch.cat([module(x) for module in modules], dim=-1)
    pairs = [(module.weight.float(), _float_bias(module)) for module in modules]
    if len(pairs) == 1:
        weight, bias = pairs[0]
        return lambda x: linear(x, weight, bias)
    return lambda x: torch.cat([linear(x, weight, bias) for weight, bias in pairs], dim=-1)


def _float_bias(module: Any) -> torch.Tensor | None:
    return None if module.bias is None else module.bias.detach().float()


def pack_int8(modules: Sequence[Any]) -> Linear:
    """All rows in one int8 matrix, a scale each.

    torch rounds the activations of a call to one grid. So rows are brought to the same length
    first: a token with large ones leaves the others as fine as they are alone.
    """
    weight = torch.cat([module.weight.detach().float() for module in modules])
    biases = [bias for module in modules if (bias := _float_bias(module)) is not None]
    bias = torch.cat(biases) if biases else torch.zeros(())
    scales = (weight.abs().amax(dim=1) / 127).clamp(min=1e-12)
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but the only way to the packed kernels
        quantized = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(quantized, None)
    reduces = not _multiplies_int8_in_hardware()
    multiply = torch.ops.quantized.linear_dynamic

    def run(x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor
        if len(x) == 1:
            product = multiply(x, packed, reduces)
            return product + bias if biases else product
        largest = x.abs().amax(dim=1, keepdim=True).clamp_(min=1e-30)
        return torch.addcmul(bias, multiply(x / largest, packed, reduces), largest)

    return run


def _multiplies_int8_in_hardware() -> bool:
    """Whether 8-bit activations cannot saturate; without, x86 kernels need 7 bits."""
    if torch.backends.quantized.engine == "qnnpack":
        return True
    return bool(torch.cpu._is_vnni_supported())  # noqa: SLF001 - no public way to ask
