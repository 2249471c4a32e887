"""ggml's kernels, called by ctypes: the libraries of the package libggml-python.

Blocks are expanded to floats, floats brought to blocks, rows multiplied by blocks, and what follows
attention in a block of a gated model is computed in one go.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from fedattn.core.errors import ConfigurationError
from fedattn.model.weights.formats import BlockFormat
from fedattn.model.weights.graphs import Draft, Graphs, InitParams, Plan, PoolParams

_PACKAGE = "libggml"
_F32 = 0

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


Shape = tuple[BlockFormat, int]
"""Format and rows of a matrix."""


@dataclass(frozen=True, slots=True)
class GatedForm:
    """What `Ggml.finish_block` must know of a block besides addresses.

    Attributes:
        output, gate, up, down: formats of the matrices.
        inner_size: ff.
        eps: of the norm.
    """

    output: BlockFormat
    gate: BlockFormat
    up: BlockFormat
    down: BlockFormat
    inner_size: int
    eps: float


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
        self._graphs = Graphs(self._base, self._cpu)

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

    def multiply(
        self, shapes: tuple[Shape, ...], addresses: Sequence[int], x: torch.Tensor
    ) -> torch.Tensor:
        """Products of rows with matrices in blocks; a row's depends on no other row.

        The rows are rounded to 8 bits, a scale for each block.

        Args:
            shapes: of the matrices.
            addresses: where each begins.
            x: [N, in] float32, contiguous.

        Returns:
            [N, sum of out] float32.
        """
        num_rows, width = x.shape
        sizes = [num_rows * rows for _, rows in shapes]
        products = torch.empty(sum(sizes))

        def draw() -> Draft:
            draft = Draft(self._base)
            inputs = draft.take(_F32, width, num_rows)
            for matrix in [draft.take(form.number, width, rows) for form, rows in shapes]:
                draft.result("ggml_mul_mat", matrix, inputs)
            return draft

        begins = accumulate((4 * size for size in sizes[:-1]), initial=products.data_ptr())
        self._graphs.run(
            (shapes, width, num_rows),
            draw,
            torch.get_num_threads(),
            (x.data_ptr(), *addresses),
            tuple(begins),
        )
        if num_rows == 1 or len(shapes) == 1:
            return products.view(num_rows, -1)
        parts = torch.split(products, sizes)
        return torch.cat([part.view(num_rows, -1) for part in parts], dim=-1)

    def finish_block(
        self,
        form: GatedForm,
        addresses: Sequence[int],
        attended: torch.Tensor,
        hidden: torch.Tensor,
    ) -> torch.Tensor:
        """What follows attention in a gated block: h += W attended; h += down(silu(gate) * up).

        Gate and up are of the RMS norm of h. A row of the result depends on no other row.

        Args:
            form: of the block.
            addresses: of W, the norm's factors [d] float32, gate, up and down.
            attended: [N, in] float32, contiguous.
            hidden: h, [N, d] float32, contiguous.

        Returns:
            [N, d] float32.
        """
        num_rows, size = hidden.shape
        out = torch.empty(num_rows, size)
        given = (attended.data_ptr(), hidden.data_ptr(), *addresses)
        self._graphs.run(
            (form, num_rows),
            lambda: _draw_finish(self._base, form, num_rows, attended.shape[1], size),
            torch.get_num_threads(),
            given,
            (out.data_ptr(),),
        )
        return out


def _draw_finish(base: Any, form: GatedForm, rows: int, attended_size: int, size: int) -> Draft:
    draft = Draft(base, rows * (6 * size + 3 * form.inner_size))
    attended, hidden = draft.take(_F32, attended_size, rows), draft.take(_F32, size, rows)
    output = draft.take(form.output.number, attended_size, size)
    norm = draft.take(_F32, size)
    gate = draft.take(form.gate.number, size, form.inner_size)
    up = draft.take(form.up.number, size, form.inner_size)
    down = draft.take(form.down.number, form.inner_size, size)
    summed = draft.between("ggml_add", hidden, draft.between("ggml_mul_mat", output, attended))
    normed = draft.between("ggml_mul", draft.between("ggml_rms_norm", summed, form.eps), norm)
    gated = draft.between(
        "ggml_swiglu_split",
        draft.between("ggml_mul_mat", gate, normed),
        draft.between("ggml_mul_mat", up, normed),
    )
    draft.result("ggml_add", summed, draft.between("ggml_mul_mat", down, gated))
    return draft


def _declare(base: Any, cpu: Any) -> None:
    """Argument and result types, as ggml.h and ggml-cpu.h have them."""
    pointer, integer, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    signatures: list[tuple[Any, Any, list[Any]]] = [
        (base.ggml_init, pointer, [InitParams]),
        (base.ggml_set_no_alloc, None, [pointer, ctypes.c_bool]),
        (base.ggml_free, None, [pointer]),
        (base.ggml_tensor_overhead, ctypes.c_size_t, []),
        (base.ggml_graph_overhead_custom, ctypes.c_size_t, [ctypes.c_size_t, ctypes.c_bool]),
        (base.ggml_new_tensor_2d, pointer, [pointer, integer, long, long]),
        (base.ggml_mul_mat, pointer, [pointer, pointer, pointer]),
        (base.ggml_add, pointer, [pointer, pointer, pointer]),
        (base.ggml_mul, pointer, [pointer, pointer, pointer]),
        (base.ggml_rms_norm, pointer, [pointer, pointer, ctypes.c_float]),
        (base.ggml_swiglu_split, pointer, [pointer, pointer, pointer]),
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
