"""Attacks on the doors of a gateway, and what an honest client sees meanwhile.

    python -m benchmarks.doors [--connections 200] [--watch-s 45] [--source FOLDER]

Everything is on the loopback: the gateway in a process of its own (of another checkout with
--source), and in this one its publisher, which is made up, the attackers, and a client that asks
once a second. An attacker connects once and then does nothing more:

    half a head    sends no end of its headers
    half a body    sends no end of its body
    no reading     asks for a stream, as many as there are places, and takes nothing of it
"""

import argparse
import asyncio
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from benchmarks.blocks import ROOT
from fedattn.cli.network import free_port
from fedattn.wire.v1 import participant_pb2
from tests.harness.gateway import QueryEvent, good_script, opened, running

PLACES = 4
ENDLESS = "endless"
TOKEN_S, TOKEN_TEXT = 0.01, "word " * 200
"""An answer of 100 KB a second: a talkative model, so that buffers fill while one watches."""
_HEAD = b"POST /v1/queries HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_STREAM = json.dumps({"question": ENDLESS, "stream": True}).encode()
ATTACKS = {
    "half a head": _HEAD,
    "half a body": _HEAD + b"Content-Length: 100\r\n\r\n{",
    "no reading": _HEAD + b"Content-Length: %d\r\n\r\n" % len(_STREAM) + _STREAM,
}


async def script(request: participant_pb2.QueryRequest) -> AsyncIterator[QueryEvent]:
    """A short answer, or one without end."""
    if request.question != ENDLESS:
        async for event in good_script(request):
            yield event
        return
    yield opened()
    while True:
        await asyncio.sleep(TOKEN_S)
        yield QueryEvent(token=participant_pb2.TokenText(text=TOKEN_TEXT))


@asynccontextmanager
async def running_gateway(source: Path) -> AsyncIterator[int]:
    """A gateway before one publisher that follows the script; its port."""
    port = free_port()
    async with running(script) as harness:
        flags = [
            f"--listen=127.0.0.1:{port}",
            f"--aggregator={harness.address}",
            f"--max-concurrent-queries={PLACES}",
            "--plaintext",
            "--log-level=error",
        ]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", *flags),
            cwd=source,
            env={**os.environ, "PYTHONPATH": str(source)},
        )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                while not await is_ready(client):  # noqa: ASYNC110 - it is another process
                    await asyncio.sleep(0.2)
            yield port
        finally:
            process.terminate()
            await process.wait()


async def is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


async def ask(port: int) -> str:
    """What an honest client of another address gets: a status, or an exception."""
    way = httpx.AsyncHTTPTransport(local_address="127.0.0.2", verify=False)
    try:
        async with httpx.AsyncClient(transport=way, timeout=5) as client:
            url = f"http://127.0.0.1:{port}/v1/queries"
            return str((await client.post(url, json={"question": "Who?"})).status_code)
    except httpx.HTTPError as error:
        return type(error).__name__


def attack(port: int, sent: bytes) -> socket.socket:
    """A connection that has sent something, and will do nothing more."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(sent)
    return connection


def is_open(connection: socket.socket) -> bool:
    """Whether the gateway still holds it, looking without taking anything."""
    state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return state[0] == 1  # TCP_ESTABLISHED


async def watch(name: str, port: int, num_connections: int, watch_s: int) -> None:
    """Attack, and print what happens until all attackers are dropped or time is over."""
    attackers = [attack(port, ATTACKS[name]) for _ in range(num_connections)]
    begun, served_at, held = time.monotonic(), 0.0, [len(attackers)]
    seen: Counter[str] = Counter()
    while (passed_s := time.monotonic() - begun) < watch_s and (held[-1] or not served_at):
        await asyncio.sleep(1)
        status = await ask(port)
        seen[status] += 1
        served_at = served_at or (time.monotonic() - begun if status == "200" else 0.0)
        held.append(sum(map(is_open, attackers)))
    for connection in attackers:
        connection.close()
    gone = f"{held[-1]} open at the end" if held[-1] else "none"
    honest = ", ".join(f"{count} x {status}" for status, count in seen.most_common())
    first = f"after {served_at:.0f} s" if served_at else "never"
    print(
        f"{name:12} {num_connections:5} connections: {held[1]} open after 1 s, {gone} after "
        f"{passed_s:.0f} s; honest client, served first {first}: {honest}",
        flush=True,
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--watch-s", type=int, default=45)
    parser.add_argument("--source", type=Path, default=ROOT)
    arguments = parser.parse_args()
    async with running_gateway(arguments.source) as port:
        for name in ATTACKS:
            is_stream = name == "no reading"
            number = PLACES if is_stream else arguments.connections
            await watch(name, port, number, arguments.watch_s)


if __name__ == "__main__":
    asyncio.run(main())
