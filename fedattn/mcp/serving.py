"""Serving the tools: to the program that started this one, or over HTTP on this machine."""

import socket
import sys

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette

from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError
from fedattn.runtime.listening import open_listeners

PATH = "/mcp"
_GRACE_S = 5


def check_near(address: HostPort) -> HostPort:
    """The address, if only this machine can reach it.

    Whoever reaches the tools asks with the key of whoever started them, and MCP's own sign-in
    needs an authorization server; so nobody else may.

    Raises:
        ConfigurationError: others could.
    """
    if address.is_loopback:
        return address
    raise ConfigurationError(
        f"--http {address}: others could ask there in your name; listen on 127.0.0.1, and let each "
        f"user run a server of their own"
    )


def make_app(server: MCPServer, address: HostPort) -> Starlette:
    """The HTTP application; it answers no page of another site, whatever name it gives us."""
    names = {"127.0.0.1", "localhost", "[::1]", str(address).rpartition(":")[0]}
    security = TransportSecuritySettings(
        allowed_hosts=[f"{name}:*" for name in sorted(names)],
        allowed_origins=[f"http://{name}:*" for name in sorted(names)],
    )
    return server.streamable_http_app(
        streamable_http_path=PATH, host=address.host, transport_security=security
    )


async def serve_http(server: MCPServer, address: HostPort) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        ConfigurationError: others could reach the address, or it cannot be listened on.
    """
    app = make_app(server, check_near(address))
    listeners = open_listeners(address)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_GRACE_S,
    )
    host = address.with_port(_port_of(listeners[0]))
    print(f"tools on http://{host}{PATH}, Ctrl-C stops", file=sys.stderr, flush=True)
    await uvicorn.Server(config).serve(sockets=listeners)


def _port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])
