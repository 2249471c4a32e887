"""Links between the parts of a federation: TCP that is slow, loses, or is cut.

A node and a gateway reach every aggregator, those too that they are redirected to, through one link
each, which is the HTTP proxy of their settings. An aggregator reaches NATS through one.

What TCP makes of a lost packet is a segment that comes one retransmission later, and all that is
behind it too. So a link that loses 1 % holds 1 % of its segments for `RETRANSMIT_S`.
"""

import asyncio
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from fedattn.core.address import HostPort
from fedattn.core.errors import FedAttnError

LOOPBACK = "127.0.0.1"
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
    """A port that leads somewhere.

    Args:
        target: where to; None for wherever each connection asks to be led (HTTP CONNECT).
        loop: that carries it, in another thread.
        seed: of what is lost.
    """

    def __init__(self, target: HostPort | None, loop: asyncio.AbstractEventLoop, seed: int) -> None:
        self._target, self._loop, self._random = target, loop, Random(seed)
        self._weather = CLEAR
        self._cut_off: set[HostPort] = set()
        self._changed = asyncio.Event()
        self.address = asyncio.run_coroutine_threadsafe(self._listen(), loop).result()

    def set_weather(self, weather: Weather) -> None:
        """Change it, for connections that are open too."""
        self._loop.call_soon_threadsafe(self._change, weather, None)

    def cut_off(self, targets: Collection[HostPort]) -> None:
        """Cut the ways to these, and to no others."""
        self._loop.call_soon_threadsafe(self._change, None, set(targets))

    def _change(self, weather: Weather | None, cut_off: set[HostPort] | None) -> None:
        self._weather = self._weather if weather is None else weather
        self._cut_off = self._cut_off if cut_off is None else cut_off
        self._changed.set()
        self._changed = asyncio.Event()

    async def _listen(self) -> HostPort:
        self._server = await asyncio.start_server(self._connect, LOOPBACK, 0, limit=SEGMENT_BYTES)
        return HostPort(LOOPBACK, self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more; for the loop's thread."""
        self._server.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):  # which streams would print a stack for
            try:
                target = self._target or await _asked_for(reader, writer)
                await self._uncut(target)
                there = await asyncio.open_connection(target.host, target.port, limit=SEGMENT_BYTES)
            except (OSError, EOFError, FedAttnError):  # as if nobody listened at this port
                writer.transport.abort()
                return
            await asyncio.gather(
                self._carry(reader, there[1], target), self._carry(there[0], writer, target)
            )

    async def _uncut(self, target: HostPort) -> None:
        while self._weather.is_cut or target in self._cut_off:
            await self._changed.wait()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: HostPort
    ) -> None:
        """One direction, to its end."""
        way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_WAITING)
        sending = asyncio.create_task(self._deliver(way, writer, target))
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
        self,
        way: "asyncio.Queue[tuple[float, bytes]]",
        writer: asyncio.StreamWriter,
        target: HostPort,
    ) -> None:
        """What has arrived; an empty segment is the end."""
        with suppress(OSError):
            while True:
                due, data = await way.get()
                await asyncio.sleep(due - self._loop.time())
                await self._uncut(target)
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        writer.close()
        while data:  # the receiver is gone; the sender may go on until it notices
            _, data = await way.get()


async def _asked_for(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> HostPort:
    """Where a client of a proxy wants to be led; it is told that it will be."""
    head = await reader.readuntil(b"\r\n\r\n")
    _, target, *_ = head.decode().split()
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    return HostPort.parse(target)


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

    def add(self, target: HostPort | None, seed: int) -> Link:
        """A new link to somebody, or to whom each connection asks for."""
        self._links.append(Link(target, self._loop, seed))
        return self._links[-1]
