"""One budget for sessions and caches: sessions first, and what is referred to counts."""

import pytest

from fedattn.core.errors import ConfigurationError, NodeBusyError
from services.participant.kv_cache import CachedFrames, KvCache
from services.participant.memory import LEAST_ROOM, MemoryBudget, room_beside

MIB = 1 << 20


def frames(size: int) -> CachedFrames:
    return CachedFrames({0: bytes(size)})


@pytest.fixture
def budget() -> MemoryBudget:
    return MemoryBudget(100)


def caches(budget: MemoryBudget) -> tuple[KvCache[CachedFrames], KvCache[CachedFrames]]:
    return KvCache(100, budget=budget), KvCache(100, budget=budget)


def test_the_least_recently_used_entry_of_any_cache_makes_room(budget: MemoryBudget) -> None:
    one, other = caches(budget)
    one.put(b"a", frames(40))
    other.put(b"b", frames(40))
    one.touch([b"a"])
    one.put(b"c", frames(40))
    assert one.snapshot(9).keys() == {b"a", b"c"}
    assert not other.snapshot(9)
    assert budget.kept == 80


def test_sessions_go_before_what_is_kept(budget: MemoryBudget) -> None:
    kept, _ = caches(budget)
    kept.put(b"a", frames(60))
    release = budget.take(70)
    assert not kept.snapshot(9)
    kept.put(b"b", frames(40))
    assert not kept.snapshot(9)
    assert budget.claimed + budget.kept <= budget.total
    release()
    kept.put(b"b", frames(40))
    assert kept.snapshot(9).keys() == {b"b"}


def test_what_does_not_fit_is_refused_and_changes_nothing(budget: MemoryBudget) -> None:
    budget.take(60)
    with pytest.raises(NodeBusyError, match="--memory"):
        budget.take(50)
    assert budget.free == 40


def test_an_entry_that_a_session_holds_counts_until_it_lets_go(budget: MemoryBudget) -> None:
    kept, _ = caches(budget)
    kept.put(b"a", frames(60))
    held = kept.snapshot(9)
    with pytest.raises(NodeBusyError):
        budget.take(50)
    held.clear()
    assert budget.kept == 0
    budget.take(50)


def test_an_entry_in_the_place_of_another_counts_once(budget: MemoryBudget) -> None:
    kept, _ = caches(budget)
    for _ in range(3):
        kept.put(b"a", frames(60))
    assert budget.kept == 60


def test_bytes_are_given_back_once(budget: MemoryBudget) -> None:
    release = budget.take(30)
    release()
    release()
    assert budget.claimed == 0


def test_room_is_what_the_model_leaves() -> None:
    assert room_beside(600 * MIB, 1000 * MIB, 0) == 400 * MIB
    assert room_beside(600 * MIB, 0, 2000 * MIB) == 1200 * MIB
    assert room_beside(600 * MIB, 0, 500 * MIB) == LEAST_ROOM
    with pytest.raises(ConfigurationError, match="at least 728 MiB"):
        room_beside(600 * MIB, 700 * MIB, 0)
