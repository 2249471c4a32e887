"""Links between nodes and the aggregator: TCP that is slow, loses, or is cut.

What TCP makes of a lost packet is a segment that comes one retransmission later, and all that is
behind it too. So a link that loses 1 % holds 1 % of its segments for `RETRANSMIT_S`.
"""

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from fedattn.core.address import HostPort

SEGMENT_BYTES = 1448
RETRANSMIT_S = 0.2
"""Least time-out of Linux before it sends again."""
_MOST_WAITING = 512
"""Segments on their way, each direction of a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How a link is, in each direction.

    Attributes:
        delay_s: of every segment.
        bytes_per_s: what passes; None for no bound.
        loss: share of segments that have to be sent again.
        is_cut: nothing passes, not even the end of a connection; what was sent comes later.
    """

    delay_s: float = 0.0
    bytes_per_s: float | None = None
    loss: float = 0.0
    is_cut: bool = False


CLEAR = Weather()


class Link:
    """A port that leads to the aggregator.

    Args:
        target: where to.
        loop: that carries it, in another thread.
        seed: of what is lost.
    """

    def __init__(self, target: HostPort, loop: asyncio.AbstractEventLoop, seed: int) -> None:
        self._target, self._loop, self._random = target, loop, Random(seed)
        self._weather = CLEAR
        self._changed = asyncio.Event()
        self.address = asyncio.run_coroutine_threadsafe(self._listen(), loop).result()

    def set_weather(self, weather: Weather) -> None:
        """Change it, for connections that are open too."""

        def change() -> None:
            self._weather = weather
            self._changed.set()
            self._changed = asyncio.Event()

        self._loop.call_soon_threadsafe(change)

    async def _listen(self) -> HostPort:
        self._server = await asyncio.start_server(
            self._connect, "127.0.0.1", 0, limit=SEGMENT_BYTES
        )
        return self._target.with_port(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more; for the loop's thread."""
        self._server.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._uncut()
        try:
            there = await asyncio.open_connection(
                self._target.host, self._target.port, limit=SEGMENT_BYTES
            )
        except OSError:  # as if nobody listened at this port
            writer.transport.abort()
            return
        with suppress(asyncio.CancelledError):  # which streams would print a stack for
            await asyncio.gather(self._carry(reader, there[1]), self._carry(there[0], writer))

    async def _uncut(self) -> None:
        while self._weather.is_cut:
            await self._changed.wait()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction, to its end."""
        way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_WAITING)
        sending = asyncio.create_task(self._deliver(way, writer))
        due, now = 0.0, self._loop.time
        data = b"-"
        while data:
            try:
                data = await reader.read(SEGMENT_BYTES)
            except OSError:
                data = b""
            weather = self._weather
            due = max(due, now() + weather.delay_s)
            if weather.bytes_per_s is not None:
                due += len(data) / weather.bytes_per_s
            if weather.loss and self._random.random() < weather.loss:
                due += RETRANSMIT_S
            await way.put((due, data))
        await sending

    async def _deliver(
        self, way: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter
    ) -> None:
        """What has arrived; an empty segment is the end."""
        with suppress(OSError):
            while True:
                due, data = await way.get()
                await asyncio.sleep(due - self._loop.time())
                await self._uncut()
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        writer.close()
        while data:  # the receiver is gone; the sender may go on until it notices
            _, data = await way.get()


class Links:
    """Carries all links, in a thread of its own; for use in `with`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._links: list[Link] = []

    def __enter__(self) -> "Links":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        for link in self._links:
            link.close()
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def add(self, target: HostPort, seed: int) -> Link:
        """A new link to somebody."""
        self._links.append(Link(target, self._loop, seed))
        return self._links[-1]
