"""Names by which an open gateway on the loopback may be called.

A page from elsewhere could have its own name resolve to this machine; its requests then are of one
origin with the gateway (DNS rebinding), but bear that name.
"""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.problems import http_code, make_problem
from gateway.rendering import Rendering

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


class HostMiddleware:
    """Refuses requests for another host.

    Args:
        app: what answers the others.
        hosts: names without ports, IPv6 addresses without brackets.
        render: how errors are written.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], render: Rendering) -> None:
        self._app = app
        self._render = render
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (host := _host_of(scope)) not in self._hosts:
            problem = make_problem(
                421,
                http_code(421),
                f"expected the header Host to name {', '.join(sorted(self._hosts))}, got {host!r}; "
                f"ask there, or let callers sign in",
            )
            await self._render(scope["path"], problem)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _host_of(scope: Scope) -> str:
    given = Headers(scope=scope).get("host", "").lower()
    if given.startswith("["):
        return given[1:].partition("]")[0]
    return given.partition(":")[0]
