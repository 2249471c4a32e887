"""What nodes keep between sessions: bounded, least recently used first, each for its lifetime."""

import weakref

from services.participant.kv_cache import CachedFrames, KvCache
from services.participant.memory import MemoryBudget


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Frames(dict[int, bytes]):
    """Frames that can be looked for in memory."""


def frames(size: int, lifetime_s: float = 10.0) -> CachedFrames:
    return CachedFrames({0: bytes(size)}, lifetime_s=lifetime_s)


def test_least_recently_used_goes_first() -> None:
    kept: KvCache[CachedFrames] = KvCache(100)
    for key in (b"a", b"b"):
        kept.put(key, frames(40))
    kept.touch([b"a"])
    kept.put(b"c", frames(40))
    assert kept.snapshot(9).keys() == {b"a", b"c"}


def test_looking_is_not_using() -> None:
    kept: KvCache[CachedFrames] = KvCache(100)
    for key in (b"a", b"b"):
        kept.put(key, frames(40))
    kept.touch([b"a"])
    kept.snapshot(9)
    kept.put(b"c", frames(40))
    assert b"b" not in kept.snapshot(9)


def test_entries_live_as_long_as_they_may() -> None:
    clock = Clock()
    kept: KvCache[CachedFrames] = KvCache(100, clock)
    kept.put(b"short", frames(10, lifetime_s=5))
    kept.put(b"long", frames(10, lifetime_s=50))
    clock.now = 6
    assert kept.snapshot(9).keys() == {b"long"}


def test_an_idle_node_drops_what_has_lived_its_time() -> None:
    clock, sent = Clock(), Frames({0: bytes(10)})
    kept: KvCache[CachedFrames] = KvCache(100, clock)
    kept.put(b"a", CachedFrames(sent, lifetime_s=10))
    held = weakref.ref(sent)
    del sent
    clock.now = 11
    kept.expire()
    assert held() is None


def test_what_may_not_live_or_does_not_fit_is_not_kept() -> None:
    kept: KvCache[CachedFrames] = KvCache(100)
    kept.put(b"forbidden", frames(10, lifetime_s=0))
    kept.put(b"large", frames(101))
    kept.put(b"", frames(10))
    nothing: KvCache[CachedFrames] = KvCache(0)
    nothing.put(b"a", frames(1))
    assert not kept.snapshot(9)
    assert not nothing.snapshot(9)


def test_a_snapshot_takes_the_most_recently_used_whatever_their_lifetimes() -> None:
    kept: KvCache[CachedFrames] = KvCache(100)
    for key, lifetime_s in ((b"a", 50.0), (b"b", 5.0), (b"c", 20.0), (b"d", 10.0)):
        kept.put(key, frames(20, lifetime_s))
    kept.touch([b"a", b"unknown"])
    assert kept.snapshot(2).keys() == {b"a", b"d"}
    kept.put(b"e", frames(100))
    assert kept.snapshot(2).keys() == {b"e"}


def test_a_snapshot_has_a_limit_and_outlives_its_entries() -> None:
    kept: KvCache[CachedFrames] = KvCache(100, budget=MemoryBudget(200))
    for key in (b"a", b"b", b"c"):
        kept.put(key, frames(30))
    seen = kept.snapshot(2)
    kept.put(b"d", frames(100))  # for which all others go
    assert kept.snapshot(9).keys() == {b"d"}
    assert len(seen) == 2
    assert all(entry.size == 30 for entry in seen.values())
