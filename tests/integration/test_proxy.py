"""gRPC and HTTP go through a proxy exactly where `find_endpoint` says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fedattn.client import Client
from fedattn.core.address import HostPort
from fedattn.core.errors import AggregatorUnavailableError
from fedattn.core.proxies import Endpoint, find_endpoint
from fedattn.wire.channel import open_channel
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.probe import is_serving
from fedattn.wire.v1.aggregator_pb2 import ListNodesRequest
from tests.harness.runners import running_aggregator

VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy", "ALL_PROXY")
FAR = HostPort("aggregator.example.com", 50051)


@asynccontextmanager
async def refusing_proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy that lets nobody through: its URL, and the first line of each request."""
    asked: list[str] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode().strip())
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


@pytest.mark.parametrize("variable", VARIABLES)
async def test_the_environments_proxy_is_not_asked_for_a_near_peer(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    async with refusing_proxy() as (proxy, asked), running_aggregator() as address:
        monkeypatch.setenv(variable, proxy)
        endpoint = find_endpoint(HostPort.parse(address), {variable: proxy})
        assert await is_serving(endpoint, None, "")
    assert asked == []


async def test_a_far_peer_is_asked_for_at_the_proxy_and_the_error_names_it() -> None:
    async with refusing_proxy() as (proxy, asked):
        endpoint = find_endpoint(FAR, {"https_proxy": proxy})
        async with open_channel(endpoint) as channel:
            client = AggregatorClient(lambda: channel, str(endpoint))
            with pytest.raises(AggregatorUnavailableError) as caught:
                await client.list_nodes(ListNodesRequest())
    assert asked[0].startswith(f"CONNECT {FAR} ")
    assert f"{FAR} (through the proxy {proxy})" in str(caught.value)


async def test_a_proxy_can_be_asked_for_by_name_for_a_near_peer() -> None:
    async with refusing_proxy() as (proxy, asked), running_aggregator() as address:
        endpoint = find_endpoint(HostPort.parse(address), {}, proxy)
        assert not await is_serving(endpoint, None, "")
    assert asked[0].startswith(f"CONNECT {address} ")


async def test_grpc_has_no_look_at_the_environment_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with refusing_proxy() as (proxy, asked), running_aggregator() as address:
        monkeypatch.setenv("grpc_proxy", proxy)
        assert await is_serving(Endpoint(HostPort.parse(address)), None, "")
    assert asked == []


@pytest.mark.parametrize("variable", ["http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_near_gateway_is_asked_directly(
    monkeypatch: pytest.MonkeyPatch, variable: str, proxy: str
) -> None:
    monkeypatch.setenv(variable, proxy)
    with pytest.raises(Exception, match=r"gateway at 127\.0\.0\.1:1 cannot be reached"):
        Client("http://127.0.0.1:1").participants()
