"""The threads of a node: everything slow runs in them, never on the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import TypeVar

import torch

from fedattn.runtime.allocator import give_back

T = TypeVar("T")


class NodeThreads:
    """One thread a session, and as many again for tokenizing, encoding and decoding.

    Sessions run at the same time, each in a thread of its own: a session that waits for rows of
    another node must never keep a second one from computing, or two nodes could wait for each
    other.

    Args:
        max_sessions: sessions at once.
    """

    def __init__(self, max_sessions: int) -> None:
        self.pool = ThreadPoolExecutor(2 * max_sessions + 1, thread_name_prefix="model")

    async def run(self, work: Callable[[], T]) -> T:
        """Run blocking work in a thread, within the span and the log's context of now."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.pool, copy_context().run, work)

    async def compute(self, work: Callable[[], T], num_threads: int) -> T:
        """Run a model in a thread, on so many CPU threads."""

        def on_threads() -> T:
            torch.set_num_threads(num_threads)  # of this thread
            return work()

        return await self.run(on_threads)

    def tidy(self) -> None:
        """Return to the system what a session has freed, beside whatever runs."""
        with suppress(RuntimeError):  # the node ends, and all its memory with it
            self.pool.submit(give_back)

    def close(self) -> None:
        """End the threads; running work is told to stop by its session."""
        self.pool.shutdown(wait=False, cancel_futures=True)
