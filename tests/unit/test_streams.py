"""Beats between the messages of a stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from fedattn.wire.streams import with_beats


async def test_beats_fill_a_pause_and_all_messages_come_in_order() -> None:
    has_beaten = asyncio.Event()

    async def messages() -> AsyncIterator[str]:
        yield "one"
        await has_beaten.wait()
        yield "two"
        yield "three"

    got: list[str] = []
    async for message in with_beats(messages(), 0.001, "beat"):
        got.append(message)
        if message == "beat":
            has_beaten.set()
    assert got[:2] == ["one", "beat"]
    assert [message for message in got if message != "beat"] == ["one", "two", "three"]


async def test_error_of_the_messages_comes_after_them() -> None:
    async def messages() -> AsyncIterator[str]:
        yield "one"
        raise ZeroDivisionError

    beating = with_beats(messages(), 3600.0, "beat")
    assert await anext(beating) == "one"
    with pytest.raises(ZeroDivisionError):
        await anext(beating)


async def test_who_reads_no_more_ends_the_messages() -> None:
    ended = asyncio.Event()

    async def messages() -> AsyncIterator[str]:
        try:
            yield "one"
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with aclosing(with_beats(messages(), 3600.0, "beat")) as beating:
        assert await anext(beating) == "one"
    assert ended.is_set()
