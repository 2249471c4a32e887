"""What a node keeps from one session for the next, in memory, bounded, least recently used first.

A contributor caches the frames it sent, or the rows it is asked about; a publisher the rows it
received, and its own state before the question. All by cache key (`fedattn.core.reuse`). Nothing
is written to disk.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from cachetools import Cache, TLRUCache

from fedattn.core.types import HeadRows
from fedattn.model.layer_cache import LayerCache, held_bytes
from fedattn.wire.sealing import ContentKey
from services.participant.memory import MemoryBudget

FRAMES_LIFETIME_S = 86_400.0
"""A contributor's own frames; they are as private as its context, which it keeps too."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class CachedFrames:
    """Frames of one cache key, by layer, as they left.

    Attributes:
        frames: by layer.
        content_key: that they are sealed with, for receivers to come; None if they are not.
    """

    frames: Mapping[int, bytes]
    content_key: ContentKey | None = None
    lifetime_s: float = FRAMES_LIFETIME_S

    @property
    def size(self) -> int:
        return sum(len(frame) for frame in self.frames.values())


@dataclass(frozen=True, slots=True, weakref_slot=True)
class CachedRows:
    """Decoded rows of one cache key, by layer."""

    rows: Mapping[int, HeadRows]
    lifetime_s: float

    @property
    def size(self) -> int:
        return sum(rows.nbytes for rows in self.rows.values())


@dataclass(frozen=True, slots=True, weakref_slot=True)
class CachedState:
    """A publisher's rows of every block before its question: all it needs to go on from there."""

    layers: list[LayerCache]
    lifetime_s: float

    @property
    def size(self) -> int:
        return held_bytes(self.layers)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class CachedAsked:
    """Rows of a contributor that is asked, of every block where it answers; they never leave."""

    layers: Mapping[int, LayerCache]
    lifetime_s: float = FRAMES_LIFETIME_S

    @property
    def size(self) -> int:
        return held_bytes(list(self.layers.values()))


T = TypeVar("T", CachedFrames, CachedRows, CachedState, CachedAsked)


class KvCache(Generic[T]):
    """Entries by cache key. Lives on the event loop.

    Args:
        max_bytes: of all entries; 0 keeps nothing.
        clock: seconds.
        budget: that its entries count against; None for one of its own.
    """

    def __init__(
        self,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        budget: MemoryBudget | None = None,
    ) -> None:
        self._budget = budget or MemoryBudget(max_bytes)
        self._budget.add(self)
        self._entries: TLRUCache[bytes, T] = TLRUCache(
            maxsize=max_bytes,
            ttu=lambda _key, entry, now: now + entry.lifetime_s,
            timer=clock,
            getsizeof=lambda entry: entry.size,
        )
        self._used: dict[bytes, int] = {}  # numbers of uses by key, the most recent last

    @property
    def max_bytes(self) -> int:
        return int(self._entries.maxsize)

    def put(self, key: bytes, entry: T) -> None:
        """Keep an entry, if it fits and may live at all."""
        size = entry.size
        if not key or not 0 < size <= self.max_bytes or entry.lifetime_s <= 0:
            return
        self._entries.pop(key, None)
        if self._budget.make_room(size):
            self._entries[key] = entry
            self._note_use(key)
            self._budget.keep(entry, size)

    def expire(self) -> None:
        """Drop entries whose lifetime is over."""
        self._entries.expire()
        self._used = {key: use for key, use in self._used.items() if key in self._entries}

    def snapshot(self, limit: int) -> dict[bytes, T]:
        """The `limit` most recently used entries that live now; valid while referred to."""
        self.expire()
        keys = islice(reversed(self._used), limit)
        return {key: Cache.__getitem__(self._entries, key) for key in keys}  # without touching

    def touch(self, keys: Iterable[bytes]) -> None:
        """Entries were used."""
        for key in keys:
            if self._entries.get(key) is not None:
                self._note_use(key)

    def oldest_use(self) -> int | None:
        """As `Evictable.oldest_use`."""
        self.expire()
        return next(iter(self._used.values()), None)

    def evict(self) -> None:
        """As `Evictable.evict`."""
        key = next(iter(self._used))
        del self._used[key]
        self._entries.pop(key, None)

    def _note_use(self, key: bytes) -> None:
        self._used.pop(key, None)
        self._used[key] = self._budget.next_use()
