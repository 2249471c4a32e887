"""ggml's kernels, called by ctypes: the libraries of the package libggml-python.

Blocks are expanded to floats, floats brought to blocks, and graphs computed.
"""

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from fedattn.core.errors import ConfigurationError
from fedattn.model.weights.formats import BlockFormat
from fedattn.model.weights.graphs import InitParams, Library, Plan, PoolParams

_PACKAGE = "libggml"

_ToFloat = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class _Traits(ctypes.Structure):
    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", _ToFloat),
        ("from_float_ref", ctypes.c_void_p),
    )


class Ggml:
    """The functions that are used. Get it from `find_ggml`.

    Raises:
        OSError: the libraries do not load here.
        AttributeError, RuntimeError: they are another version.
    """

    def __init__(self, folder: Path) -> None:
        self._base: Any = ctypes.CDLL(str(folder / "libggml-base.so.0"))
        self._cpu: Any = ctypes.CDLL(str(folder / "libggml-cpu.so.0"))
        _declare(self._base, self._cpu)
        self._cpu.ggml_cpu_init()
        self._to_float: dict[BlockFormat, Any] = {}
        for form in BlockFormat:
            traits = self._base.ggml_get_type_traits(form.number).contents
            if (traits.blck_size, traits.type_size) != form.value[1:]:
                raise RuntimeError(f"{form.name} is of another size in this ggml")
            self._to_float[form] = traits.to_float
            self._base.ggml_quantize_init(form.number)
        self.graphs = Library(self._base, self._cpu)

    def expand(self, form: BlockFormat, blocks: torch.Tensor, out: torch.Tensor) -> None:
        """Fill `out` [N, in] float32 with the weights of `blocks` [N, bytes] uint8.

        Both are contiguous.
        """
        self._to_float[form](blocks.data_ptr(), out.data_ptr(), out.numel())

    def quantize(self, form: BlockFormat, weights: torch.Tensor) -> torch.Tensor:
        """Weights [N, in] float32 as blocks [N, bytes] uint8."""
        rows, width = weights.shape
        weights = weights.contiguous()
        blocks = torch.empty(rows, form.row_bytes(width), dtype=torch.uint8)
        self._base.ggml_quantize_chunk(
            form.number, weights.data_ptr(), blocks.data_ptr(), 0, rows, width, None
        )
        return blocks


def _declare(base: Any, cpu: Any) -> None:
    """Argument and result types, as ggml.h and ggml-cpu.h have them."""
    pointer, integer, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    real, size = ctypes.c_float, ctypes.c_size_t
    of_one, of_two = [pointer] * 2, [pointer] * 3
    signatures: list[tuple[Any, Any, list[Any]]] = [
        (base.ggml_init, pointer, [InitParams]),
        (base.ggml_free, None, [pointer]),
        (base.ggml_tensor_overhead, ctypes.c_size_t, []),
        (base.ggml_graph_overhead_custom, ctypes.c_size_t, [ctypes.c_size_t, ctypes.c_bool]),
        (base.ggml_new_tensor_4d, pointer, [pointer, integer, *[long] * 4]),
        (base.ggml_nbytes, ctypes.c_size_t, [pointer]),
        (base.ggml_view_1d, pointer, [*of_one, long, size]),
        (base.ggml_view_2d, pointer, [*of_one, long, long, size, size]),
        (base.ggml_view_3d, pointer, [*of_one, long, long, long, size, size, size]),
        (base.ggml_reshape_3d, pointer, [*of_one, long, long, long]),
        (base.ggml_cont, pointer, of_one),
        (base.ggml_mul_mat, pointer, of_two),
        (base.ggml_add, pointer, of_two),
        (base.ggml_mul, pointer, of_two),
        (base.ggml_rms_norm, pointer, [*of_one, real]),
        (base.ggml_set_rows, pointer, [*of_two, pointer]),
        (base.ggml_soft_max_ext_inplace, pointer, [*of_two, real, real]),
        (base.ggml_rope_ext, pointer, [*of_two, pointer, *[integer] * 3, *[real] * 6]),
        *((getattr(base, f"ggml_{act}glu"), pointer, of_one) for act in ("swi", "ge")),
        *((getattr(base, f"ggml_{act}glu_split"), pointer, of_two) for act in ("swi", "ge")),
        (base.ggml_new_graph_custom, pointer, [pointer, ctypes.c_size_t, ctypes.c_bool]),
        (base.ggml_build_forward_expand, None, [pointer, pointer]),
        (base.ggml_get_data, pointer, [pointer]),
        (base.ggml_get_type_traits, ctypes.POINTER(_Traits), [integer]),
        (base.ggml_quantize_init, None, [integer]),
        (
            base.ggml_quantize_chunk,
            ctypes.c_size_t,
            [integer, pointer, pointer, long, long, long, pointer],
        ),
        (base.ggml_threadpool_params_default, PoolParams, [integer]),
        (cpu.ggml_threadpool_new, pointer, [pointer]),
        (cpu.ggml_threadpool_free, None, [pointer]),
        (cpu.ggml_cpu_init, None, []),
        (cpu.ggml_graph_plan, Plan, [pointer, integer, pointer]),
        (cpu.ggml_graph_compute, integer, [pointer, pointer]),
    ]
    for function, result, arguments in signatures:
        function.restype, function.argtypes = result, arguments


@cache
def find_ggml() -> Ggml | None:
    """The kernels; None where their package is not installed or does not load."""
    spec = find_spec(_PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        for folder in ("lib64", "lib"):
            try:
                return Ggml(Path(place) / folder)
            except (OSError, AttributeError, RuntimeError):
                continue
    return None


def ggml() -> Ggml:
    """The kernels.

    Raises:
        ConfigurationError: they are not here.
    """
    found = find_ggml()
    if found is None:
        raise ConfigurationError(
            "weights in blocks need the package libggml-python, which is not installed or does "
            "not load here; run `pip install libggml-python`, or set weights to float32"
        )
    return found
