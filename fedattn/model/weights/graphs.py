"""Graphs of ggml over memory of torch: drawn once, run again and again.

What a graph reads from outside lies where it was said to lie when it was drawn. What is computed in
between lies in rooms, which one part of a graph after the other uses.
"""

import ctypes
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fedattn.core.errors import InternalError

_ALIGNMENT = 64
F32, F16, I32, I64 = 0, 1, 26, 27
"""Numbers of formats in ggml, beside those of blocks."""
_NUMBERS = {torch.float32: F32, torch.float16: F16, torch.int32: I32, torch.int64: I64}


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
    """A graph while it is drawn. Tensors are addresses, sizes in ggml's order: scalars a row first.

    Args:
        library: ggml.
        most_tensors: that it may get.
    """

    def __init__(self, library: "Library", most_tensors: int) -> None:
        self._base, self._data_offset = library.base, library.data_offset
        size = most_tensors * (self._base.ggml_tensor_overhead() + _ALIGNMENT)
        size += self._base.ggml_graph_overhead_custom(most_tensors, False)
        self._memory = ctypes.create_string_buffer(size)
        parameters = InitParams(size, ctypes.addressof(self._memory), True)
        self._context = self._base.ggml_init(parameters)
        self.graph: int = self._base.ggml_new_graph_custom(self._context, most_tensors, False)
        self._kept: list[Any] = [self._memory]
        self._rooms: list[torch.Tensor] = []
        self._next_room = 0

    def take(self, tensor: torch.Tensor, *sizes: int, number: int | None = None) -> int:
        """A contiguous tensor from outside, which the graph keeps alive.

        Args:
            tensor: where it lies.
            sizes: up to 4; those of the tensor if left out.
            number: of its format in ggml, if it is in blocks.
        """
        self._kept.append(tensor)
        four = [*(sizes or reversed(tensor.shape)), 1, 1, 1][:4]
        number = _NUMBERS[tensor.dtype] if number is None else number
        taken: int = self._base.ggml_new_tensor_4d(self._context, number, *four)
        self._data_of(taken).value = tensor.data_ptr()
        return taken

    def view(self, of: int, *sizes: int, strides: tuple[int, ...] = (), offset: int = 0) -> int:
        """A part of a tensor.

        Args:
            of: the tensor.
            sizes: up to 3.
            strides: bytes from a row to the next, and so on: one fewer than sizes.
            offset: bytes before it.
        """
        make = getattr(self._base, f"ggml_view_{len(sizes)}d")
        view: int = make(self._context, of, *sizes, *strides, offset)
        return view

    def reshape(self, of: int, *sizes: int) -> int:
        """The same contiguous memory in another shape of 3 sizes."""
        reshaped: int = self._base.ggml_reshape_3d(self._context, of, *sizes)
        return reshaped

    def between(self, function: str, *arguments: Any) -> int:
        """What a function of ggml makes, in a room."""
        made = self.within(function, *arguments)
        self._data_of(made).value = self._room(self._base.ggml_nbytes(made))
        return made

    def within(self, function: str, *arguments: Any) -> int:
        """What a function of ggml makes in the memory of its arguments."""
        made: int = getattr(self._base, f"ggml_{function}")(self._context, *arguments)
        return made

    def into(self, memory: torch.Tensor, offset: int, function: str, *arguments: Any) -> None:
        """What a function of ggml makes, in memory from so many scalars on; computed next."""
        made = self.within(function, *arguments)
        self._kept.append(memory)
        self._data_of(made).value = memory.data_ptr() + offset * memory.element_size()
        self.compute(made)

    def compute(self, tensor: int) -> None:
        """Have a tensor, and what it is made of, computed after whatever was so far."""
        self._base.ggml_build_forward_expand(self.graph, tensor)

    @contextmanager
    def lent_rooms(self) -> Iterator[None]:
        """What comes after this may write over all that is made in between during it."""
        before = self._next_room
        yield
        self._next_room = before

    def close(self) -> list[Any]:
        """What the finished graph lies in and reads."""
        self._base.ggml_free(self._context)  # the memory is ours, and stays
        return self._kept

    def _room(self, num_bytes: int) -> int:
        number, self._next_room = self._next_room, self._next_room + 1
        if number == len(self._rooms):
            self._rooms.append(torch.empty(0, dtype=torch.uint8))
        if self._rooms[number].nbytes < num_bytes:
            self._rooms[number] = torch.empty(num_bytes, dtype=torch.uint8)
            self._kept.append(self._rooms[number])
        return self._rooms[number].data_ptr()

    def _data_of(self, tensor: int) -> ctypes.c_void_p:
        return ctypes.c_void_p.from_address(tensor + self._data_offset)


class Library:
    """ggml, as far as graphs go.

    Args:
        base, cpu: its libraries, with their functions declared.

    Raises:
        RuntimeError: they are of an unknown version.
    """

    def __init__(self, base: Any, cpu: Any) -> None:
        self.base, self.cpu = base, cpu
        self.data_offset = self._find_data_offset()
        self._kept = threading.local()

    def draw(self, draft: Draft) -> Callable[[int], None]:
        """What computes a finished draft on a number of threads; for the calling thread alone.

        It raises InternalError if ggml does not. What a number takes is made when it is first asked
        for.
        """
        graph, kept, plans = draft.graph, draft.close(), dict[int, Any]()
        compute = self.cpu.ggml_graph_compute

        def run(threads: int, _kept: list[Any] = kept) -> None:
            plan, _ = plans.get(threads) or plans.setdefault(threads, self._plan(graph, threads))
            if status := compute(graph, ctypes.byref(plan)):
                raise InternalError(f"ggml computed no graph: expected status 0, got {status}")

        return run

    def _plan(self, graph: int, threads: int) -> tuple[Plan, Any]:
        """How so many threads compute a graph, and what must live as long."""
        pool = self._pool(threads)
        plan = self.cpu.ggml_graph_plan(graph, threads, pool.address if pool else None)
        work = ctypes.create_string_buffer(plan.work_size + _ALIGNMENT)
        plan.work_data = ctypes.addressof(work)
        return plan, (work, pool)

    def _pool(self, threads: int) -> _Pool | None:
        """Of the calling thread; None if it needs no other."""
        if threads == 1:
            return None
        pool: _Pool | None = getattr(self._kept, "pool", None)
        if pool is None or pool.threads != threads:
            pool = self._kept.pool = _Pool(self.base, self.cpu, threads)
        return pool

    def _find_data_offset(self) -> int:
        """Where a tensor of ggml has its data pointer: looked for, since versions differ."""
        context = self.base.ggml_init(InitParams(1 << 16, None, False))
        tensor = self.base.ggml_new_tensor_4d(context, F32, 32, 1, 1, 1)
        data = self.base.ggml_get_data(tensor)
        offsets = range(0, self.base.ggml_tensor_overhead(), 8)
        found = [at for at in offsets if ctypes.c_void_p.from_address(tensor + at).value == data]
        self.base.ggml_free(context)
        if len(found) != 1:
            raise RuntimeError("the tensors of this ggml are of an unknown layout")
        return found[0]
