"""Graphs of ggml over memory of torch: drawn once for each thread and shape, run by pointers.

A graph's inputs and results are where its caller says at each run; what is computed in between lies
in memory of its own, which all blocks of a model share.
"""

import ctypes
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

_MOST_NODES = 16
_MOST_TENSORS = 24
_ALIGNMENT = 64
_MOST_GRAPHS = 256
"""Of a thread; then it starts afresh. Shapes of a model times answers at once are fewer."""


class InitParams(ctypes.Structure):
    """As ggml.h has them."""

    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


class Plan(ctypes.Structure):
    """How a graph is computed, as ggml-cpu.h has it."""

    _fields_ = (
        ("work_size", ctypes.c_size_t),
        ("work_data", ctypes.c_void_p),
        ("n_threads", ctypes.c_int),
        ("threadpool", ctypes.c_void_p),
        ("abort_callback", ctypes.c_void_p),
        ("abort_callback_data", ctypes.c_void_p),
        ("use_ref", ctypes.c_bool),
    )


class PoolParams(ctypes.Structure):
    """As ggml.h has them."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * 512),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


class _Pool:
    """Threads that wait for graphs; without, ggml starts some for each."""

    def __init__(self, base: Any, cpu: Any, threads: int) -> None:
        params = base.ggml_threadpool_params_default(threads)
        params.poll = 0  # wait asleep: torch computes on the same cores in between
        self.threads = threads
        self.address: int = cpu.ggml_threadpool_new(ctypes.byref(params))
        weakref.finalize(self, cpu.ggml_threadpool_free, self.address).atexit = False


class Draft:
    """A graph while it is drawn. Sizes are in ggml's order: scalars a row, then rows.

    Args:
        base: the library.
        num_floats: room for what is computed in between.

    Attributes:
        given: tensors whose memory the caller gives, in the order in which they were asked for.
        results: tensors whose memory the caller gives too.
    """

    def __init__(self, base: Any, num_floats: int = 0) -> None:
        self._base = base
        size = _MOST_TENSORS * (base.ggml_tensor_overhead() + _ALIGNMENT) + 4 * num_floats
        size += base.ggml_graph_overhead_custom(_MOST_NODES, False)
        self.memory = ctypes.create_string_buffer(size)
        parameters = InitParams(size, ctypes.addressof(self.memory), True)
        self._context = base.ggml_init(parameters)
        self.given: list[int] = []
        self.results: list[int] = []

    def take(self, number: int, width: int, rows: int = 1) -> int:
        """A tensor of a format of ggml that comes from outside."""
        self._base.ggml_set_no_alloc(self._context, True)
        self.given.append(self._base.ggml_new_tensor_2d(self._context, number, width, rows))
        return self.given[-1]

    def between(self, function: str, *arguments: Any) -> int:
        """What a function of ggml makes, for other functions."""
        self._base.ggml_set_no_alloc(self._context, False)
        tensor: int = getattr(self._base, function)(self._context, *arguments)
        return tensor

    def result(self, function: str, *arguments: Any) -> None:
        """What a function of ggml makes, for the caller."""
        self._base.ggml_set_no_alloc(self._context, True)
        self.results.append(getattr(self._base, function)(self._context, *arguments))

    def close(self) -> int:
        """The address of the finished graph."""
        graph: int = self._base.ggml_new_graph_custom(self._context, _MOST_NODES, False)
        for tensor in self.results:
            self._base.ggml_build_forward_expand(graph, tensor)
        self._base.ggml_free(self._context)  # the memory is ours, and stays
        return graph


@dataclass(frozen=True, slots=True)
class _Graph:
    """A graph that is run again and again.

    Attributes:
        given, results: the data pointer of each.
        graph: address.
        plan: how it is computed.
        memory: what the addresses are in.
    """

    given: tuple[ctypes.c_void_p, ...]
    results: tuple[ctypes.c_void_p, ...]
    graph: int
    plan: Any
    memory: tuple[Any, ...]


class Graphs:
    """Runs graphs, and keeps them for each thread.

    Args:
        base, cpu: the libraries, with their functions declared.

    Raises:
        RuntimeError: they are of an unknown version.
    """

    def __init__(self, base: Any, cpu: Any) -> None:
        self._base, self._cpu = base, cpu
        self._data_offset = self._find_data_offset()
        self._kept = threading.local()

    def run(
        self,
        key: Hashable,
        draw: Callable[[], Draft],
        threads: int,
        given: Sequence[int],
        results: Sequence[int],
    ) -> None:
        """Compute on so many threads.

        Args:
            key: of the graph; another for every shape.
            draw: makes it.
            threads: to compute on.
            given: addresses, in the order of the draft.
            results: likewise.
        """
        graph = self._find((key, threads), draw, threads)
        for pointer, address in zip(graph.given, given, strict=True):
            pointer.value = address
        for pointer, address in zip(graph.results, results, strict=True):
            pointer.value = address
        status = self._cpu.ggml_graph_compute(graph.graph, graph.plan)
        if status:
            raise RuntimeError(f"ggml could not compute: status {status}")

    def _find(self, key: Hashable, draw: Callable[[], Draft], threads: int) -> _Graph:
        graphs: dict[Hashable, _Graph] = vars(self._kept).setdefault("graphs", {})
        graph = graphs.get(key)
        if graph is None:
            if len(graphs) >= _MOST_GRAPHS:
                graphs.clear()
            graph = graphs[key] = self._make(draw(), threads)
        return graph

    def _make(self, draft: Draft, threads: int) -> _Graph:
        graph, pool = draft.close(), self._pool(threads)
        plan = self._cpu.ggml_graph_plan(graph, threads, pool.address if pool else None)
        work = ctypes.create_string_buffer(plan.work_size + _ALIGNMENT)
        plan.work_data = ctypes.addressof(work)
        return _Graph(
            given=tuple(map(self._pointer, draft.given)),
            results=tuple(map(self._pointer, draft.results)),
            graph=graph,
            plan=ctypes.byref(plan),
            memory=(draft.memory, work, plan, pool),
        )

    def _pool(self, threads: int) -> _Pool | None:
        """Of the calling thread; None if it needs no other."""
        if threads == 1:
            return None
        pool: _Pool | None = getattr(self._kept, "pool", None)
        if pool is None or pool.threads != threads:
            pool = self._kept.pool = _Pool(self._base, self._cpu, threads)
        return pool

    def _pointer(self, tensor: int) -> ctypes.c_void_p:
        return ctypes.c_void_p.from_address(tensor + self._data_offset)

    def _find_data_offset(self) -> int:
        """Where a tensor of ggml has its data pointer: looked for, since versions differ."""
        context = self._base.ggml_init(InitParams(1 << 16, None, False))
        tensor = self._base.ggml_new_tensor_2d(context, 0, 32, 1)
        data = self._base.ggml_get_data(tensor)
        offsets = range(0, self._base.ggml_tensor_overhead(), 8)
        found = [at for at in offsets if ctypes.c_void_p.from_address(tensor + at).value == data]
        self._base.ggml_free(context)
        if len(found) != 1:
            raise RuntimeError("the tensors of this ggml are of an unknown layout")
        return found[0]
