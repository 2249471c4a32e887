"""Reading streams of messages."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

M = TypeVar("M")


async def next_within(requests: AsyncIterator[M], timeout_s: float) -> M | None:
    """The next message; None if the stream ended or nothing came in time."""
    try:
        async with asyncio.timeout(timeout_s):
            return await anext(requests)
    except (StopAsyncIteration, TimeoutError):
        return None
