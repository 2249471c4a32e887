"""Edge links on one machine: a network namespace a node, rates by tc, delays by a small TCP proxy.

A node's namespace has one interface. Its peer on the host leads to a proxy that forwards to the
aggregator and holds every byte back for the link's delay, in each direction. Needs root and
iproute2.
"""

import asyncio
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from fedattn.core.errors import ConfigurationError

_READ_BYTES = 1 << 16
_HELD_READS = 256
_QUEUE_S = 0.05
"""Of a link's own buffer, seconds at its rate."""
_BURST_BYTES = 1 << 14


@dataclass(frozen=True, slots=True)
class Link:
    """What lies between a node and its aggregator.

    Attributes:
        rate_mbit_s: in each direction; 0 for no limit.
        delay_ms: in each direction.
    """

    rate_mbit_s: float = 0.0
    delay_ms: float = 0.0

    def __str__(self) -> str:
        if self.rate_mbit_s == 0:
            return "no limit"
        return f"{self.rate_mbit_s:g} Mbit/s, {self.delay_ms:g} ms"


@dataclass(slots=True)
class _Proxy:
    """Forwards TCP connections to one address, holding bytes back."""

    target_port: int
    delay_s: float = 0.0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._forward(source, sink))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_HELD_READS)
        sending = asyncio.create_task(self._release(held, writer))
        with suppress(ConnectionError):
            while data := await reader.read(_READ_BYTES):
                await held.put((asyncio.get_running_loop().time() + self.delay_s, data))
        await held.put((0.0, b""))
        await sending

    async def _release(
        self, held: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError):
            while True:
                due, data = await held.get()
                if not data:
                    break
                left = due - asyncio.get_running_loop().time()
                if left > 0:
                    await asyncio.sleep(left)
                writer.write(data)
                await writer.drain()
        writer.close()


@dataclass(slots=True)
class EdgeLinks:
    """Namespaces with their links, which can be changed while they are used."""

    aggregator_port: int
    names: list[str]
    _proxies: list[_Proxy] = field(default_factory=list)
    _ports: list[int] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def wrapper(self, index: int) -> tuple[str, ...]:
        """Words that run a command in a node's namespace."""
        return ("ip", "netns", "exec", self.names[index])

    def aggregator(self, index: int) -> str:
        """Where the node finds the aggregator, behind its link."""
        return f"10.77.{index}.1:{self._ports[index]}"

    def set_link(self, link: Link) -> None:
        """Give every node this link, from now on."""
        for index, name in enumerate(self.names):
            self._proxies[index].delay_s = link.delay_ms / 1e3
            shape(_device("h", index), link)
            shape(_device("n", index), link, namespace=name)

    def open(self) -> None:
        """Make namespaces and proxies."""
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        for index, name in enumerate(self.names):
            host, node = _device("h", index), _device("n", index)
            ip("netns", "add", name)
            ip("link", "add", host, "type", "veth", "peer", "name", node, "netns", name)
            ip("address", "add", f"10.77.{index}.1/24", "dev", host)
            ip("link", "set", host, "up")
            ip("-n", name, "address", "add", f"10.77.{index}.2/24", "dev", node)
            ip("-n", name, "link", "set", node, "up")
            ip("-n", name, "link", "set", "lo", "up")
            proxy = _Proxy(self.aggregator_port)
            listening = asyncio.start_server(proxy.serve, f"10.77.{index}.1", 0)
            server = asyncio.run_coroutine_threadsafe(listening, self._loop).result()
            self._proxies.append(proxy)
            self._ports.append(server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Remove everything; processes in the namespaces must have ended."""
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        for index, name in enumerate(self.names):
            for words in (["link", "delete", _device("h", index)], ["netns", "delete", name]):
                subprocess.run(["ip", *words], check=False, capture_output=True)  # noqa: S603, S607


@contextmanager
def edge_links(aggregator_port: int, num_nodes: int) -> Iterator[EdgeLinks]:
    """Namespaces for so many nodes, without limits at first.

    Raises:
        ConfigurationError: this machine or user cannot make them.
    """
    require_namespaces()
    links = EdgeLinks(aggregator_port, [f"fedattn-{os.getpid()}-{i}" for i in range(num_nodes)])
    try:
        links.open()
        yield links
    finally:
        links.close()


def require_namespaces() -> None:
    """Raise ConfigurationError if this machine or user cannot make network namespaces."""
    if os.geteuid() != 0 or shutil.which("tc") is None:
        raise ConfigurationError(
            "emulated links need root and iproute2 (ip, tc); install it and run this as root"
        )


def _device(end: str, index: int) -> str:
    """Name of an interface: at most 15 characters, of this process alone."""
    return f"fa{os.getpid()}{end}{index}"


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def shape(device: str, link: Link, namespace: str | None = None) -> None:
    """Give an interface the rate of a link, for what it sends."""
    command = ["tc", *(["-n", namespace] if namespace else []), "qdisc"]
    subprocess.run([*command, "delete", "dev", device, "root"], check=False, capture_output=True)  # noqa: S603
    if link.rate_mbit_s:
        rate, burst = f"{link.rate_mbit_s}mbit", max(_BURST_BYTES, int(link.rate_mbit_s * 250))
        limit = _BURST_BYTES * 4 + int(link.rate_mbit_s * 1e6 / 8 * _QUEUE_S)
        words = ["root", "tbf", "rate", rate, "burst", str(burst), "limit", str(limit)]
        _run([*command, "add", "dev", device, *words])


def ip(*words: str) -> None:
    """Run `ip`; ConfigurationError with what it says if it fails."""
    _run(["ip", *words])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode != 0:
        raise ConfigurationError(f"{' '.join(command)}: {done.stderr.strip()}")
