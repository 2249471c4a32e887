"""Connections that take time on purpose, and too many of them, against a real port."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from fedattn.core.errors import ConfigurationError
from fedattn.runtime import doors as doors_module
from fedattn.runtime import patience
from fedattn.runtime.doors import Crowd, Doors, peer_of, tls_context
from fedattn.wire.v1 import participant_pb2
from tests.harness.gateway import QueryEvent, good_script, opened, running, served
from tests.harness.https import write_certificate

HEAD = b"POST /v1/queries HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment is too long for a client; what the tests then await is the end."""
    monkeypatch.setattr(patience, "_PHASES", dict.fromkeys(patience._PHASES, 0.05))


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = httpx.URL(url)
    return await asyncio.open_connection(address.host, address.port)


async def end_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        HEAD,
        HEAD + b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he",
    ],
    ids=["nothing", "half a head", "half a body", "half a second head"],
)
async def test_client_that_does_not_go_on_is_dropped(sent: bytes) -> None:
    async with running() as gateway, served(gateway) as (url, _):
        reader, writer = await connect(url)
        writer.write(sent)
        await end_of(reader)
        writer.close()
        assert gateway.participant.requests == []


async def test_more_connections_than_one_address_may_have_are_dropped_at_once() -> None:
    async with running() as gateway, served(gateway, doors=Doors(max_per_address=2)) as (url, _):
        held = [await connect(url) for _ in range(2)]
        for reader, writer in held:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        reader, writer = await connect(url)
        assert await end_of(reader) == b""
        writer.close()
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/healthz")).status_code == 200  # their places are free


def test_all_addresses_together_have_a_limit_too() -> None:
    crowd = Crowd(Doors(max_connections=2, max_per_address=2))
    assert crowd.enter("a")
    assert crowd.enter("b")
    assert not crowd.enter("c")
    crowd.leave("a")
    assert crowd.enter("c")


def test_addresses_of_one_ipv6_network_are_one_peer() -> None:
    assert peer_of(("2001:db8:1:2::3", 1)) == peer_of(("2001:db8:1:2:ffff::9", 2))
    assert peer_of(("2001:db8:1:2::3", 1)) != peer_of(("2001:db8:1:3::3", 1))
    assert peer_of(("::ffff:10.0.0.1", 1)) == peer_of(("10.0.0.1", 2)) == "10.0.0.1"


async def test_client_that_takes_nothing_loses_its_query(monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(_request: object) -> AsyncIterator[QueryEvent]:
        yield opened()
        while True:
            yield QueryEvent(token=participant_pb2.TokenText(text="word " * 1000))

    monkeypatch.setattr("fedattn.runtime.patience.TAKE_TIMEOUT_S", 0.05)
    async with running(endless, max_concurrent_queries=1) as gateway, served(gateway) as (url, _):
        address = httpx.URL(url)
        deaf = socket.create_connection((address.host, address.port or 0))
        body = b'{"question": "Who?", "stream": true}'
        deaf.sendall(
            HEAD
            + b"Content-Type: application/json\r\n"
            + b"Content-Length: %d\r\n\r\n" % len(body)
            + body
        )
        await gateway.participant.cancelled.wait()
        gateway.participant.script = good_script
        assert (await gateway.ask()).status_code == 200
        deaf.close()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return tls_context(*write_certificate(tmp_path_factory.mktemp("tls")))


async def test_https_is_spoken_with_a_certificate(tls: ssl.SSLContext) -> None:
    async with running() as gateway, served(gateway, doors=Doors(tls=tls)) as (url, _):
        async with httpx.AsyncClient(verify=False) as client:
            https = url.replace("http:", "https:")
            page = await client.get(f"{https}/static-offline-docs/swagger-ui-bundle.js")
            assert page.status_code == 200
            assert len(page.content) > 500_000  # more than all buffers on the way hold


async def test_slow_handshake_is_dropped_and_its_place_is_free(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    doors = Doors(tls=tls, max_per_address=1)
    async with running() as gateway, served(gateway, doors=doors) as (url, _):
        with monkeypatch.context() as hurrying:
            hurrying.setattr(doors_module, "HANDSHAKE_TIMEOUT_S", 0.05)
            reader, writer = await connect(url)
            await end_of(reader)
            writer.close()
        async with httpx.AsyncClient(verify=False) as client:
            answer = await client.get(f"{url.replace('http:', 'https:')}/healthz")
            assert answer.status_code == 200


def test_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--tls-certificate .*gone\.crt"):
        tls_context(tmp_path / "gone.crt", tmp_path / "gone.key")
