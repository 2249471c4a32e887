"""A gRPC server that passes messages from one stream to another and does nothing else.

What an aggregator could cost at least, in Python: `python -m benchmarks.bare_relay PORT`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

SERVICE = "benchmarks.BareRelay"
_OPTIONS = [("grpc.max_receive_message_length", 1 << 21), ("grpc.max_send_message_length", 1 << 21)]


async def serve(port: int) -> None:
    """Serve until killed."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(64)

    async def up(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for message in requests:
            await queue.put(message)
        await queue.put(None)
        yield b""

    async def down(_: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        while (message := await queue.get()) is not None:
            yield message

    server = grpc.aio.server(options=_OPTIONS)
    methods: dict[str, Any] = {
        "Up": grpc.stream_stream_rpc_method_handler(up),
        "Down": grpc.stream_stream_rpc_method_handler(down),
    }
    handler = grpc.method_handlers_generic_handler(SERVICE, methods)
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def push_through(port: int, message: bytes, count: int) -> None:
    """Send a message so many times and receive each."""
    options = [*_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as sending,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as receiving,
    ):

        async def messages() -> AsyncIterator[bytes]:
            for _ in range(count):
                yield message

        async def hello() -> AsyncIterator[bytes]:
            yield b""

        async def read(
            channel: grpc.aio.Channel, name: str, requests: AsyncIterator[bytes]
        ) -> None:
            method: Any = channel.stream_stream(f"/{SERVICE}/{name}")
            async for _ in method(requests, wait_for_ready=True):
                pass

        await asyncio.gather(read(receiving, "Down", hello()), read(sending, "Up", messages()))


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
