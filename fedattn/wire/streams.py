"""Reading streams of messages."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

M = TypeVar("M")


async def next_within(requests: AsyncIterator[M], timeout_s: float) -> M | None:
    """The next message; None if the stream ended or nothing came in time."""
    try:
        async with asyncio.timeout(timeout_s):
            return await anext(requests)
    except (StopAsyncIteration, TimeoutError):
        return None


async def with_beats(
    messages: AsyncIterator[M], interval_s: float, beat: M
) -> AsyncGenerator[M, None]:
    """The messages, with a beat between them whenever none came for so long; raises as they do."""
    waiting: asyncio.Queue[M | None] = asyncio.Queue()  # as bounded as the messages are

    async def read() -> None:  # all of them in one task, whose context is theirs
        async for message in messages:
            waiting.put_nowait(message)

    reading = asyncio.create_task(read())
    reading.add_done_callback(lambda _: waiting.put_nowait(None))
    try:
        while True:
            try:
                async with asyncio.timeout(interval_s):
                    message = await waiting.get()
            except TimeoutError:
                message = beat
            if message is None:
                break
            yield message
        await reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
