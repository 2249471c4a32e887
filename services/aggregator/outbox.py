"""A bounded queue of messages to one receiver."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """First in, first out, bounded by bytes; a full one makes its writers wait.

    After `close` what is queued is still read, further writes are dropped. After `discard` readers
    end at once.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._size = 0
        self._closed = False
        self._changed = asyncio.Condition()

    @property
    def size_bytes(self) -> int:
        return self._size

    async def put(self, item: T, size: int, timeout_s: float) -> bool:
        """Queue an item of `size` bytes once there is room.

        Returns:
            False if the receiver took nothing for `timeout_s`.
        """
        async with self._changed:
            while self._size and self._size + size > self._max_bytes and not self._closed:
                before = self._size
                try:
                    async with asyncio.timeout(timeout_s):
                        await self._changed.wait()
                except TimeoutError:
                    if self._size >= before:
                        return False
            if not self._closed:
                self._items.append((item, size))
                self._size += size
                self._changed.notify_all()
            return True

    async def get(self) -> T | None:
        """The next item, or None at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._items or self._closed)
            if not self._items:
                return None
            item, size = self._items.popleft()
            self._size -= size
            self._changed.notify_all()
            return item

    async def close(self) -> None:
        """No more items come."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def discard(self) -> None:
        """Drop what is queued and end."""
        async with self._changed:
            self._items.clear()
            self._size = 0
            self._closed = True
            self._changed.notify_all()
