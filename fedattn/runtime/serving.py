"""Serving an HTTP application until told to stop."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from starlette.types import ASGIApp

from fedattn.core.errors import ConfigurationError
from fedattn.runtime.doors import Crowd, Door, Doors
from fedattn.runtime.patience import MAX_HEAD_BYTES, PatientProtocol
from fedattn.runtime.supervision import notify_ready

_SEND_BUFFER_BYTES = 32 << 10
"""Of the kernel, for each client: megabytes, as it would take, hide one that takes nothing."""

log = structlog.get_logger(__name__)


class HttpServer(uvicorn.Server):
    """uvicorn behind a `Door`, without its signal handlers: `run_service` has its own."""

    def __init__(self, config: uvicorn.Config, doors: Doors) -> None:
        super().__init__(config)
        self._doors = doors

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; raises ConfigurationError if the application does not start."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise ConfigurationError("the application did not start; its log says why")
        loop = asyncio.get_running_loop()
        crowd = Crowd(self._doors)

        def make_inside() -> PatientProtocol:
            return PatientProtocol(self.config, self.server_state, self.lifespan.state, loop)

        self.servers = [
            await loop.create_server(
                lambda: Door(self._doors, crowd, make_inside),
                sock=listener,
                backlog=self.config.backlog,
            )
            for listener in sockets or []
        ]
        self.started = True


async def serve_app(
    app: ASGIApp,
    listeners: list[socket.socket],
    stopping: asyncio.Event,
    grace_s: int,
    doors: Doors | None = None,
) -> None:
    """Serve until `stopping` is set, then let running requests end within `grace_s` seconds.

    Args:
        app: the application.
        listeners: listening sockets.
        stopping: set to stop.
        grace_s: seconds for requests that run then.
        doors: who may connect, and how.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_graceful_shutdown=grace_s,
    )
    for listener in listeners:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    server = HttpServer(config, doors or Doors())
    host, port, *_ = listeners[0].getsockname()

    async def watch() -> None:
        await stopping.wait()
        log.info("stopping")
        server.should_exit = True

    watcher = asyncio.create_task(watch())
    log.info("serving", host=host, port=port)
    notify_ready()
    try:
        await server.serve(sockets=listeners)
    finally:
        watcher.cancel()
