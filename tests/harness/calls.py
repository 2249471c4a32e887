"""Calls of a servicer without a network: what a client sends, what comes back, how it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from fedattn.core.errors import FedAttnError

Q = TypeVar("Q")
R = TypeVar("R")


class Plaintext:
    """Of a caller without a certificate."""

    def auth_context(self) -> dict[str, list[bytes]]:
        """Nobody has proved to be anybody."""
        return {}


class Call(Generic[Q, R]):
    """One stream in each direction, as gRPC has them; runs on a loop that is not running now.

    Args:
        loop: where it runs.
        handler: a servicer's method.

    Attributes:
        responses: what the client has read.
        error: why the servicer ended it, if it failed.
        is_reading: cleared while the client takes nothing: its flow-control window is full.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, handler: Callable[..., Any]) -> None:
        self.responses: list[R] = []
        self.error: FedAttnError | None = None
        self.is_reading = asyncio.Event()
        self.is_reading.set()
        self._requests: asyncio.Queue[Q | None] = asyncio.Queue()
        self._task = loop.create_task(self._run(handler))

    @property
    def is_over(self) -> bool:
        """Whether the servicer has ended it, or the client has gone."""
        return self._task.done()

    def send(self, message: Q) -> None:
        """Send one message."""
        self._requests.put_nowait(message)

    def half_close(self) -> None:
        """Send no more."""
        self._requests.put_nowait(None)

    def break_off(self) -> None:
        """Go, as a client that was killed."""
        self._task.cancel()

    async def _run(self, handler: Callable[..., Any]) -> None:
        try:
            async with aclosing(handler(self._messages(), Plaintext())) as responses:
                async for response in responses:
                    self.responses.append(response)
                    await self.is_reading.wait()
        except FedAttnError as error:
            self.error = error

    async def _messages(self) -> AsyncIterator[Q]:
        while (message := await self._requests.get()) is not None:
            yield message
