"""What heads of requests may hold, and what heads of answers say to browsers."""

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedattn.runtime.patience import MAX_HEAD_BYTES
from gateway.problems import http_code, make_problem, problem_response

MAX_HEADERS = 64
"""Browsers and proxies send about 30."""
_DOCS = "/docs"
_PARTS_OF_DOCS = "/static-offline-docs/"

_EVERYWHERE: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'"
_PAGE = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""For the interactive page, whose own script stands in it."""


class HeadMiddleware:
    """Refuses heads that are too large, and adds headers to all answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(scope["path"], MutableHeaders(raw=message.setdefault("headers", [])))
            await send(message)

        headers = scope["headers"]
        num_bytes = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        num_bytes += sum(len(name) + len(value) for name, value in headers)
        if len(headers) > MAX_HEADERS or num_bytes > MAX_HEAD_BYTES:
            problem = make_problem(
                431,
                http_code(431),
                f"expected at most {MAX_HEADERS} headers and {MAX_HEAD_BYTES} bytes of address and "
                f"headers, got {len(headers)} and {num_bytes}; send fewer",
            )
            await problem_response(problem, {})(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


def _add_headers(path: str, headers: MutableHeaders) -> None:
    for name, value in _EVERYWHERE.items():
        headers.setdefault(name, value)
    headers.setdefault("Content-Security-Policy", _PAGE if path == _DOCS else _NOTHING)
    if not path.startswith(_PARTS_OF_DOCS):
        headers.setdefault("Cache-Control", "no-store")
