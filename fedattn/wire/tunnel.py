"""The ends of a connection between gateway and node that the aggregator carries.

A node behind NAT cannot be dialled, and holds a connection to the aggregator. So gRPC at either end
speaks to a socket of its own process, and what it says there travels in calls to the aggregator.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from fedattn.core.address import SocketPath
from fedattn.core.errors import ConfigurationError
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.protocol import MAX_TUNNEL_DATA
from fedattn.wire.v1 import aggregator_pb2 as pb

_MAX_PATH = 100
"""Bytes of the path of a socket; Linux takes 107, and macOS 103."""


class SocketFolder:
    """Sockets of this process, in a folder that nobody but its user may enter.

    Raises:
        ConfigurationError: the folder for temporary files has too long a name.
    """

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="fedattn-")
        self._num_made = 0
        if len(self._next().encode()) > _MAX_PATH:
            self.close()
            raise ConfigurationError(
                f"sockets: {self._folder.name} is too long a name for them; set TMPDIR to a folder "
                f"with a shorter one, such as /tmp"
            )

    def new(self) -> SocketPath:
        """A path that is not in use."""
        path = SocketPath(Path(self._next()))
        self._num_made += 1
        return path

    def close(self) -> None:
        """Remove it."""
        self._folder.cleanup()

    def _next(self) -> str:
        return f"{self._folder.name}/{self._num_made:06d}"


async def carry(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    first: pb.TunnelRequest,
    aggregator: AggregatorClient,
) -> None:
    """Pass on the bytes of a local connection until either end closes it; it is then closed.

    Neither side is read faster than the other takes: bytes wait in the buffers of both sockets.

    Args:
        reader: of the local connection.
        writer: of the local connection.
        first: which tunnel it is.
        aggregator: carries it.

    Raises:
        FedAttnError: as sent by the aggregator, or it cannot be reached.
    """

    is_through = asyncio.Event()

    async def sent() -> AsyncIterator[pb.TunnelRequest]:
        yield first
        await is_through.wait()  # who writes while the call is refused never learns why (grpc.aio)
        with suppress(ConnectionError):
            while data := await reader.read(MAX_TUNNEL_DATA):
                yield pb.TunnelRequest(data=data)

    try:
        with suppress(ConnectionError), aggregator.tunnel(sent()) as received:
            async for message in received:
                is_through.set()
                writer.write(message.data)
                await writer.drain()
    finally:
        writer.close()
        is_through.set()  # for `sent` to end
