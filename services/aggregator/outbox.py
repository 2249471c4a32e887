"""A bounded queue of messages to one receiver."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """First in, first out, bounded by bytes; a full one makes its writers wait.

    After `close` what is queued is still read, and further writes are dropped.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._size = 0
        self._closed = False
        self._has_items = asyncio.Event()
        self._has_room = asyncio.Event()

    async def put(self, item: T, size: int, timeout_s: float) -> bool:
        """Queue an item of `size` bytes once there is room.

        Returns:
            False if the receiver took nothing for `timeout_s`.
        """
        while self._size and self._size + size > self._max_bytes and not self._closed:
            self._has_room.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._has_room.wait()
            except TimeoutError:
                return False
        self.push(item, size)
        return True

    def push(self, item: T, size: int = 0) -> None:
        """Queue an item at once, room or not: for the few small ones that must not wait."""
        if not self._closed:
            self._items.append((item, size))
            self._size += size
            self._has_items.set()

    async def get(self) -> T | None:
        """The next item, or None at the end."""
        while not self._items:
            if self._closed:
                return None
            self._has_items.clear()
            await self._has_items.wait()
        item, size = self._items.popleft()
        self._size -= size
        self._has_room.set()
        return item

    def close(self) -> None:
        """No more items come."""
        self._closed = True
        self._has_items.set()
        self._has_room.set()

    def discard(self) -> None:
        """Drop what is queued and end."""
        self._items.clear()
        self._size = 0
        self.close()
