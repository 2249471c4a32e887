"""The bounded queue to one receiver."""

import asyncio

import pytest

from services.aggregator.outbox import Outbox

NEVER_S = 3600.0
AT_ONCE_S = 1e-6


async def test_items_come_out_in_order() -> None:
    outbox: Outbox[str] = Outbox(100)
    for item in "abc":
        assert await outbox.put(item, 10, NEVER_S)
    assert [await outbox.get() for _ in range(3)] == ["a", "b", "c"]


async def test_full_outbox_makes_its_writer_wait_for_room() -> None:
    outbox: Outbox[str] = Outbox(10)
    await outbox.put("a", 10, NEVER_S)
    writing = asyncio.create_task(outbox.put("b", 10, NEVER_S))
    await asyncio.wait({writing}, timeout=0)
    assert not writing.done()
    assert await outbox.get() == "a"
    assert await writing
    assert await outbox.get() == "b"


async def test_writer_learns_of_a_receiver_that_takes_nothing() -> None:
    outbox: Outbox[str] = Outbox(10)
    await outbox.put("a", 10, NEVER_S)
    with pytest.raises(TimeoutError):
        await outbox.put("b", 1, AT_ONCE_S)


async def test_item_larger_than_the_bound_passes_alone() -> None:
    outbox: Outbox[str] = Outbox(10)
    assert await outbox.put("huge", 99, AT_ONCE_S)
    assert await outbox.get() == "huge"


async def test_notices_do_not_wait_for_room() -> None:
    outbox: Outbox[str] = Outbox(10)
    await outbox.put("a", 10, NEVER_S)
    outbox.push("notice")
    assert [await outbox.get(), await outbox.get()] == ["a", "notice"]


async def test_closed_outbox_is_read_to_its_end_and_takes_no_more() -> None:
    outbox: Outbox[str] = Outbox(10)
    await outbox.put("a", 10, NEVER_S)
    outbox.close()
    assert not await outbox.put("b", 10, NEVER_S)
    assert [await outbox.get(), await outbox.get()] == ["a", None]


async def test_discard_wakes_reader_and_writers() -> None:
    outbox: Outbox[str] = Outbox(10)
    reading = asyncio.create_task(outbox.get())
    await asyncio.wait({reading}, timeout=0)
    outbox.discard()
    assert await reading is None
    full: Outbox[str] = Outbox(10)
    await full.put("a", 10, NEVER_S)
    writing = asyncio.create_task(full.put("b", 10, NEVER_S))
    await asyncio.wait({writing}, timeout=0)
    full.discard()
    assert not await writing
    assert await full.get() is None


async def test_low_ranks_overtake_and_equal_ones_do_not() -> None:
    outbox: Outbox[str] = Outbox(100)
    for item, rank in (("a9", 9), ("a10", 10), ("b2", 2), ("b9", 9), ("key", 0)):
        assert await outbox.put(item, 10, NEVER_S, rank)
    assert [await outbox.get() for _ in range(5)] == ["key", "b2", "a9", "b9", "a10"]
