"""One budget for all that a node holds beside its model: running sessions, and what it keeps.

Sessions come first: before one begins it claims what it will hold, and the least recently used
entries of any cache make room. What was dropped counts until nobody refers to it any more.
"""

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from fedattn.core.errors import ConfigurationError, NodeBusyError

LEAST_ROOM = 128 << 20
"""Without so much for sessions a node is of no use."""


class Evictable(Protocol):
    """A cache whose entries make room."""

    def oldest_use(self) -> int | None:
        """Number of the use of its least recently used entry; None if it is empty."""

    def evict(self) -> None:
        """Drop that entry."""


class MemoryBudget:
    """Bytes that sessions and caches share. Its methods belong to the event loop.

    Args:
        total: bytes.

    Attributes:
        claimed: bytes of running sessions.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.claimed = 0
        self._kept = 0
        self._freed: deque[int] = deque()  # sizes of entries, by whatever thread freed them
        self._caches: list[Evictable] = []
        self._uses = 0

    @property
    def kept(self) -> int:
        """Bytes of entries that are in memory, in a cache or not."""
        while self._freed:
            self._kept -= self._freed.popleft()
        return self._kept

    @property
    def free(self) -> int:
        """Bytes that neither a session nor an entry holds."""
        return self.total - self.claimed - self.kept

    def add(self, cache: Evictable) -> None:
        """Let a cache make room too."""
        self._caches.append(cache)

    def next_use(self) -> int:
        """Numbers uses, so that caches can tell whose entry was used last."""
        self._uses += 1
        return self._uses

    def keep(self, entry: Any, size: int) -> None:
        """Count an entry until it is freed."""
        self._kept += size
        weakref.finalize(entry, self._freed.append, size).atexit = False

    def make_room(self, size: int) -> bool:
        """Drop entries until so many bytes are free; False if they are not even then."""
        while self.free < size:
            used = [(use, cache) for cache in self._caches if (use := cache.oldest_use())]
            if not used:
                return False
            min(used, key=lambda one: one[0])[1].evict()
        return True

    def take(self, size: int) -> Callable[[], None]:
        """Claim bytes for a session; what is returned gives them back, and may be called again.

        Raises:
            NodeBusyError: they are not there, even without what the caches keep.
        """
        if not self.make_room(size):
            raise NodeBusyError(
                f"the node has {max(0, self.free) >> 20} of {self.total >> 20} MiB for sessions "
                f"left, and this one takes {size >> 20}; ask for fewer tokens, wait for other "
                f"sessions, or start the node with more --memory"
            )
        self.claimed += size
        held = [size]

        def release() -> None:
            self.claimed -= held.pop() if held else 0

        return release


def room_beside(fixed: int, memory: int, offered: int) -> int:
    """Bytes for sessions and caches.

    Args:
        fixed: bytes of libraries, decoder and public prefix.
        memory: bytes that the node may hold; 0 for nine tenths of what is offered, or
            LEAST_ROOM more than `fixed`.
        offered: bytes that its control group or machine has for it.

    Raises:
        ConfigurationError: `memory` is less than what is taken already, and LEAST_ROOM.
    """
    if memory:
        if memory - fixed < LEAST_ROOM:
            raise ConfigurationError(
                f"memory {memory >> 20} MiB: libraries and decoder take {fixed >> 20}; expected "
                f"at least {(fixed + LEAST_ROOM) >> 20} MiB, or choose a smaller model"
            )
        return memory - fixed
    return max(LEAST_ROOM, offered * 9 // 10 - fixed)
