"""Serving an HTTP application until told to stop."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import uvicorn
from starlette.types import ASGIApp

from fedattn.runtime.supervision import notify_ready

log = structlog.get_logger(__name__)


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: `run_service` has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_app(
    app: ASGIApp,
    listeners: list[socket.socket],
    stopping: asyncio.Event,
    grace_s: int,
    tls: tuple[Path, Path] | None = None,
) -> None:
    """Serve until `stopping` is set, then let running requests end within `grace_s` seconds.

    Args:
        app: the application.
        listeners: listening sockets.
        stopping: set to stop.
        grace_s: seconds for requests that run then.
        tls: files with certificate and key, for HTTPS.
    """
    certificate, key = tls or (None, None)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=grace_s,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    server = HttpServer(config)
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
