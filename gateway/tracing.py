"""Requests as spans, below that of the caller who sends a `traceparent`."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedattn.runtime.tracing import TRACEPARENT, Kind, span

_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_PREFIX = "/v1/"
"""Probes, pages and their parts are not worth a trace."""


class TraceMiddleware:
    """Makes each request of an API a span; its address and body are no part of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_traced(scope):
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        names = {"http.request.method": method, "url.scheme": scope["scheme"]}
        with span(method, names, kind=Kind.SERVER, parent=_traceparent(scope)) as request:

            async def noting_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    request.set("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        request.fail(str(message["status"]))
                await send(message)

            try:
                await self._app(scope, receive, noting_send)
            finally:
                if route := getattr(scope.get("route"), "path", ""):
                    request.set("http.route", route)
                    request.rename(f"{method} {route}")


def _is_traced(scope: Scope) -> bool:
    """What asks, and what a caller traces; who looks again and again would fill a collector."""
    if scope["type"] != "http" or not scope["path"].startswith(_PREFIX):
        return False
    return scope["method"] != "GET" or bool(_traceparent(scope))


def _traceparent(scope: Scope) -> str:
    """As the caller sent it; none if it sent several."""
    given = [value for name, value in scope["headers"] if name == TRACEPARENT.encode()]
    return given[0].decode("latin-1") if len(given) == 1 else ""
