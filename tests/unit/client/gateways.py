"""Gateways by hand, and both clients behind one face."""

import asyncio
import inspect
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from fedattn.client import AsyncClient, Client
from fedattn.rest.problems import Problem

EVENTS, JSON, PROBLEM = "text/event-stream", "application/json", "application/problem+json"


@dataclass(kw_only=True)
class Said:
    """One answer of a gateway."""

    content: str
    media_type: str = EVENTS
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Seen:
    """What a gateway was sent: method and path, headers and body of each request."""

    url: str
    lines: list[str] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)


@contextmanager
def answering(*answers: Said, tls: ssl.SSLContext | None = None) -> Iterator[Seen]:
    """A server that says one thing after the other, and the last for ever."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            seen.bodies.append(json.loads(self.rfile.read(size)))
            self.do_GET()

        def do_GET(self) -> None:
            seen.lines.append(f"{self.command} {self.path}")
            seen.heads.append(dict(self.headers))
            said = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(said.status)
            self.send_header("Content-Type", said.media_type)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said.content.encode())

        def do_DELETE(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        seen = Seen(f"http://127.0.0.1:{server.server_port}")
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            seen.url = seen.url.replace("http:", "https:")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()


def events(*pairs: tuple[str, str], first_id: int | None = None) -> str:
    """Server-sent events of these names and data; numbered if there is a first number."""
    return "".join(
        ("" if first_id is None else f"id: {first_id + i}\n") + f"event: {name}\ndata: {data}\n\n"
        for i, (name, data) in enumerate(pairs)
    )


def problem(status: int, code: str, detail: str, **headers: str) -> Said:
    document = Problem(
        type=f"urn:fedattn:error:{code}",
        title=code,
        status=status,
        detail=detail,
        code=code,
        instance="urn:uuid:0",
    )
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = document.model_dump_json(exclude_none=True)
    return Said(content=content, media_type=PROBLEM, status=status, headers=named)


class Blocking:
    """Calls a client's methods and gives what they come to; the same for both clients.

    Args:
        is_async: whether the client is of asyncio.
    """

    def __init__(self, *, is_async: bool) -> None:
        self._is_async = is_async

    def call(self, gateway: str, path: str, *args: Any, **options: Any) -> Any:
        """What `client.a(...)`, or `client.a(...).b()` if the path is a.b, comes to."""
        names = path.split(".")
        settings = {name: options.pop(name) for name in ("api_key", "ca") if name in options}
        retries = options.pop("retries", 0)
        if self._is_async:
            waiting = AsyncClient(gateway, retries=retries, **settings)
            return asyncio.run(_call(waiting, names, args, options))
        with Client(gateway, retries=retries, **settings) as client:
            result = getattr(client, names[0])(*args, **options)
            for name in names[1:]:
                result = getattr(result, name)()
            return list(result) if inspect.isgenerator(result) else result


async def _call(client: AsyncClient, names: list[str], args: Any, options: Any) -> Any:
    async with client:
        result = getattr(client, names[0])(*args, **options)
        for name in names[1:]:
            result = getattr(await result, name)()
        if inspect.isasyncgen(result):
            return [item async for item in result]
        return await result
