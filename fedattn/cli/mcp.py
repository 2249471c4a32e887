"""`fedattn mcp`: a network as tools of an agent."""

import asyncio
from typing import Annotated

import typer

from fedattn.cli.options import ApiKey, Authority, Gateway
from fedattn.client import AsyncClient
from fedattn.client.connection import DEFAULT_GATEWAY
from fedattn.core.address import HostPort
from fedattn.runtime.extras import require_extras


def mcp(
    gateway: Gateway = DEFAULT_GATEWAY,
    api_key: ApiKey = None,
    ca: Authority = None,
    http: Annotated[
        str | None,
        typer.Option(
            help="Serve over HTTP at this address of the loopback; default: stdin and stdout.",
            metavar="HOST:PORT",
        ),
    ] = None,
) -> None:
    """Offer a gateway as tools of an agent, over the Model Context Protocol (MCP)."""
    require_extras("mcp")
    from fedattn.mcp.server import make_server
    from fedattn.mcp.serving import serve_http

    address = None if http is None else HostPort.parse_listening(http)

    async def serve() -> None:
        async with AsyncClient(gateway, api_key, ca=ca) as client:
            server = make_server(client)
            if address is None:
                await server.run_stdio_async()
            else:
                await serve_http(server, address)

    asyncio.run(serve())
