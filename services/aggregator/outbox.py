"""A bounded queue of messages to one receiver."""

import asyncio
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """Lowest rank first, then first in, first out; bounded by bytes, and a full one makes its
    writers wait.

    After `close` what is queued is still read, and further writes are dropped.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: list[tuple[int, int, T, int]] = []  # a heap of (rank, number, item, size)
        self._numbers = count()
        self._size = 0
        self._closed = False
        self._has_items = asyncio.Event()
        self._has_room = asyncio.Event()

    @property
    def size(self) -> int:
        """Bytes that are queued."""
        return self._size

    def has_room(self, size: int) -> bool:
        """Whether an item of `size` bytes need not wait; an empty outbox takes any."""
        return self._size == 0 or self._size + size <= self._max_bytes

    async def put(self, item: T, size: int, timeout_s: float, rank: int = 0) -> bool:
        """Queue an item of `size` bytes once there is room.

        Returns:
            False if the outbox is closed and the item was dropped.

        Raises:
            TimeoutError: the receiver made no room for it within `timeout_s`.
        """
        async with asyncio.timeout(timeout_s):
            while not self._closed and not self.has_room(size):
                self._has_room.clear()
                await self._has_room.wait()
        return self.push(item, size, rank)

    def push(self, item: T, size: int = 0, rank: int = 0) -> bool:
        """Queue an item at once, room or not; False if the outbox is closed."""
        if self._closed:
            return False
        heappush(self._items, (rank, next(self._numbers), item, size))
        self._size += size
        self._has_items.set()
        return True

    async def get(self) -> T | None:
        """The next item, or None at the end."""
        while not self._items:
            if self._closed:
                return None
            self._has_items.clear()
            await self._has_items.wait()
        _, _, item, size = heappop(self._items)
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
