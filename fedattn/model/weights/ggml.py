"""ggml's kernels, called by ctypes: the libraries of the package libggml-python.

Three functions are used: expand blocks to floats, bring floats to blocks, multiply. A product is a
graph of ggml; graphs are made once for each thread and shape, and each call sets their pointers.
"""

import ctypes
import threading
import weakref
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

_PACKAGE = "libggml"
_F32 = 0
_GRAPH_NODES = 8
_MOST_GRAPHS = 256
"""Of a thread; then it starts afresh. Shapes of a model times answers at once are fewer."""


class _InitParams(ctypes.Structure):
    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


class _Plan(ctypes.Structure):
    _fields_ = (
        ("work_size", ctypes.c_size_t),
        ("work_data", ctypes.c_void_p),
        ("n_threads", ctypes.c_int),
        ("threadpool", ctypes.c_void_p),
        ("abort_callback", ctypes.c_void_p),
        ("abort_callback_data", ctypes.c_void_p),
        ("use_ref", ctypes.c_bool),
    )


class _PoolParams(ctypes.Structure):
    _fields_ = (
        ("cpumask", ctypes.c_bool * 512),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


class _Pool:
    """Threads that wait for products; without, ggml starts some for each."""

    def __init__(self, base: Any, cpu: Any, threads: int) -> None:
        params = base.ggml_threadpool_params_default(threads)
        params.poll = 0  # wait asleep: torch computes on the same cores in between
        self.threads = threads
        self.address: int = cpu.ggml_threadpool_new(ctypes.byref(params))
        weakref.finalize(self, cpu.ggml_threadpool_free, self.address).atexit = False


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


@dataclass(frozen=True, slots=True)
class _Graph:
    """Products of N rows with several matrices.

    Attributes:
        weights, outputs: address of the data pointer of each matrix and product.
        inputs: likewise of the rows.
        offsets: bytes from the first product to each.
        graph: address.
        plan: how it is computed.
        memory: what the addresses are in.
    """

    weights: tuple[ctypes.c_void_p, ...]
    inputs: ctypes.c_void_p
    outputs: tuple[ctypes.c_void_p, ...]
    offsets: tuple[int, ...]
    graph: int
    plan: Any
    memory: tuple[Any, ...]


Shape = tuple[BlockFormat, int]
"""Format and rows of a matrix."""


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
        self._data_offset = self._find_data_offset()
        self._graphs = threading.local()

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
        graph = self._graph(shapes, width, num_rows, torch.get_num_threads())
        products = torch.empty(num_rows * sum(rows for _, rows in shapes))
        graph.inputs.value = x.data_ptr()
        for pointer, address in zip(graph.weights, addresses, strict=True):
            pointer.value = address
        begin = products.data_ptr()
        for pointer, offset in zip(graph.outputs, graph.offsets, strict=True):
            pointer.value = begin + offset
        status = self._cpu.ggml_graph_compute(graph.graph, graph.plan)
        if status:
            raise RuntimeError(f"ggml could not multiply: status {status}")
        if num_rows == 1 or len(shapes) == 1:
            return products.view(num_rows, -1)
        parts = torch.split(products, [num_rows * rows for _, rows in shapes])
        return torch.cat([part.view(num_rows, -1) for part in parts], dim=-1)

    def _graph(self, shapes: tuple[Shape, ...], width: int, rows: int, threads: int) -> _Graph:
        graphs: dict[Any, _Graph] = vars(self._graphs).setdefault("graphs", {})
        key = (shapes, width, rows, threads)
        graph = graphs.get(key)
        if graph is None:
            if len(graphs) >= _MOST_GRAPHS:
                graphs.clear()
            graph = graphs[key] = self._make_graph(shapes, width, rows, threads)
        return graph

    def _make_graph(self, shapes: tuple[Shape, ...], width: int, rows: int, threads: int) -> _Graph:
        base = self._base
        size = (2 * len(shapes) + 4) * base.ggml_tensor_overhead()
        size += base.ggml_graph_overhead_custom(_GRAPH_NODES, False)
        buffer = ctypes.create_string_buffer(size)
        context = base.ggml_init(_InitParams(size, ctypes.addressof(buffer), True))
        inputs = base.ggml_new_tensor_2d(context, _F32, width, rows)
        weights = [
            base.ggml_new_tensor_2d(context, form.number, width, out) for form, out in shapes
        ]
        outputs = [base.ggml_mul_mat(context, matrix, inputs) for matrix in weights]
        graph = base.ggml_new_graph_custom(context, _GRAPH_NODES, False)
        for output in outputs:
            base.ggml_build_forward_expand(graph, output)
        pool = self._pool(threads)
        plan = self._cpu.ggml_graph_plan(graph, threads, pool.address if pool else None)
        work = ctypes.create_string_buffer(plan.work_size + 64)
        plan.work_data = ctypes.addressof(work)
        base.ggml_free(context)  # the buffer is ours, and stays
        return _Graph(
            weights=tuple(self._pointer(tensor) for tensor in weights),
            inputs=self._pointer(inputs),
            outputs=tuple(self._pointer(tensor) for tensor in outputs),
            offsets=tuple(accumulate((4 * rows * out for _, out in shapes[:-1]), initial=0)),
            graph=graph,
            plan=ctypes.byref(plan),
            memory=(buffer, work, plan, pool),
        )

    def _pool(self, threads: int) -> _Pool | None:
        """Of the calling thread; None if it needs no other."""
        if threads == 1:
            return None
        pool: _Pool | None = getattr(self._graphs, "pool", None)
        if pool is None or pool.threads != threads:
            pool = self._graphs.pool = _Pool(self._base, self._cpu, threads)
        return pool

    def _pointer(self, tensor: int) -> ctypes.c_void_p:
        return ctypes.c_void_p.from_address(tensor + self._data_offset)

    def _find_data_offset(self) -> int:
        """Where a tensor of ggml has its data pointer: looked for, since versions differ."""
        context = self._base.ggml_init(_InitParams(1 << 16, None, False))
        tensor = self._base.ggml_new_tensor_2d(context, _F32, 32, 1)
        data = self._base.ggml_get_data(tensor)
        offsets = range(0, self._base.ggml_tensor_overhead(), 8)
        found = [at for at in offsets if ctypes.c_void_p.from_address(tensor + at).value == data]
        self._base.ggml_free(context)
        if len(found) != 1:
            raise RuntimeError("the tensors of this ggml are of an unknown layout")
        return found[0]


def _declare(base: Any, cpu: Any) -> None:
    """Argument and result types, as ggml.h and ggml-cpu.h have them."""
    pointer, integer, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    signatures: list[tuple[Any, Any, list[Any]]] = [
        (base.ggml_init, pointer, [_InitParams]),
        (base.ggml_free, None, [pointer]),
        (base.ggml_tensor_overhead, ctypes.c_size_t, []),
        (base.ggml_graph_overhead_custom, ctypes.c_size_t, [ctypes.c_size_t, ctypes.c_bool]),
        (base.ggml_new_tensor_2d, pointer, [pointer, integer, long, long]),
        (base.ggml_mul_mat, pointer, [pointer, pointer, pointer]),
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
        (base.ggml_threadpool_params_default, _PoolParams, [integer]),
        (cpu.ggml_threadpool_new, pointer, [pointer]),
        (cpu.ggml_threadpool_free, None, [pointer]),
        (cpu.ggml_cpu_init, None, []),
        (cpu.ggml_graph_plan, _Plan, [pointer, integer, pointer]),
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
