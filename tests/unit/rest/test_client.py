"""The client says what a gateway said, in types, and whatever goes wrong in one line."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from fedattn.core.errors import (
    ConfigurationError,
    FedAttnError,
    GatewayUnavailableError,
    NodeBusyError,
    ProtocolMismatchError,
    SessionAbortedError,
)
from fedattn.rest.answers import LayerEvent, QueryAnswer, TokenEvent
from fedattn.rest.client import GatewayClient
from fedattn.rest.problems import Problem
from fedattn.rest.query import QueryBody, SessionBody
from fedattn.runtime.doors import tls_context
from tests.harness.answers import sample_answer
from tests.harness.https import write_certificate

BODY = QueryBody(question="Who?", deadline_s=5)
BUSY = Problem(
    type="urn:fedattn:error:node_busy",
    title="Node busy",
    status=429,
    detail="node-a takes part in 4 sessions already",
    code="node_busy",
    instance="urn:uuid:0",
)

heads: list[dict[str, str]] = []
"""Headers of the requests to the last server."""


@contextmanager
def answering(
    content: str, media_type: str, status: int = 200, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[Any]]]:
    """A server that always says the same; its URL, and the documents it was sent."""
    bodies: list[Any] = []
    heads.clear()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            bodies.append(json.loads(self.rfile.read(size)))
            self.do_GET()

        def do_GET(self) -> None:
            heads.append(dict(self.headers))
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", bodies
        finally:
            server.shutdown()
            thread.join()


def events(*pairs: tuple[str, str]) -> str:
    return "".join(f"event: {name}\ndata: {data}\n\n" for name, data in pairs)


def test_events_come_typed_and_unknown_ones_are_passed_over() -> None:
    stream = events(
        ("layer", '{"layer": 7, "num_rows": 3, "wait_s": 0.5, "arrivals": [], "new": 1}'),
        ("weather", '{"sky": "blue"}'),
        ("token", '{"text": "Pier"}'),
        ("report", sample_answer().model_dump_json()),
    )
    with answering(stream, "text/event-stream") as (url, bodies):
        layer, token, answer = GatewayClient(url).stream(BODY)
    assert layer == LayerEvent(layer=7, num_rows=3, wait_s=0.5, arrivals=[])
    assert token == TokenEvent(text="Pier")
    assert answer == sample_answer()
    (sent,) = bodies
    assert QueryBody.model_validate(sent) == BODY.model_copy(update={"stream": True})


def test_ask_waits_for_the_answer() -> None:
    stream = events(("report", sample_answer().model_dump_json()))
    with answering(stream, "text/event-stream") as (url, _):
        assert isinstance(GatewayClient(url).ask(BODY), QueryAnswer)


@pytest.mark.parametrize("call", ["ask", "warm", "participants"])
def test_a_problem_is_raised_as_its_own_class(call: str) -> None:
    with answering(BUSY.model_dump_json(), "application/problem+json", 429) as (url, _):
        client = GatewayClient(url)
        calls = {
            "ask": lambda: client.ask(BODY),
            "warm": lambda: client.warm(SessionBody()),
            "participants": client.participants,
        }
        with pytest.raises(NodeBusyError, match="node-a takes part"):
            calls[call]()


def test_a_problem_during_the_stream_is_raised_too() -> None:
    stream = events(("token", '{"text": "P"}'), ("error", BUSY.model_dump_json()))
    with answering(stream, "text/event-stream") as (url, _), pytest.raises(NodeBusyError):
        list(GatewayClient(url).stream(BODY))


def test_a_problem_of_many_lines_is_one() -> None:
    problem = BUSY.model_copy(update={"detail": "busy\nerror [model]: gone"})
    with answering(problem.model_dump_json(), "application/problem+json", 429) as (url, _):
        with pytest.raises(NodeBusyError, match=r"^busy error \[model\]: gone$"):
            GatewayClient(url).ask(BODY)


@pytest.mark.parametrize(
    ("content", "media_type", "status", "error", "words"),
    [
        ("", "text/event-stream", 200, SessionAbortedError, "without a report"),
        ("<html>", "text/html", 200, GatewayUnavailableError, "is it a fedattn gateway"),
        ("<html>", "text/html", 502, GatewayUnavailableError, "answered 502 without a problem"),
        ("event: report\ndata: {}\n\n", "text/event-stream", 200, ProtocolMismatchError, "version"),
        ("event: token\ndata: x\n\n", "text/event-stream", 200, ProtocolMismatchError, "version"),
    ],
)
def test_what_is_no_answer_is_one_line(
    content: str, media_type: str, status: int, error: type[FedAttnError], words: str
) -> None:
    with answering(content, media_type, status) as (url, _), pytest.raises(error, match=words):
        GatewayClient(url).ask(BODY)


def test_nobody_there_is_one_line() -> None:
    with pytest.raises(GatewayUnavailableError, match=r"at 127\.0\.0\.1:1 cannot be reached"):
        GatewayClient("127.0.0.1:1").participants()


def test_plain_http_behind_https_is_told_as_such() -> None:
    with answering("[]", "application/json") as (url, _):
        client = GatewayClient(url.replace("http://", "https://"))
        with pytest.raises(GatewayUnavailableError, match="no TLS that this machine trusts"):
            client.participants()


def test_a_key_is_sent_and_without_one_nothing() -> None:
    with answering("[]", "application/json") as (url, _):
        GatewayClient(url, api_key="fa_x").participants()
        GatewayClient(url).participants()
    assert [head.get("Authorization") for head in heads] == ["Bearer fa_x", None]


def test_a_key_of_several_lines_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ConfigurationError, match="fedattn keys create"):
        GatewayClient("http://127.0.0.1:1", api_key="fa_x\ny")


def test_an_https_gateway_is_trusted_by_the_authority_that_is_given(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    with answering("[]", "application/json", tls=tls_context(certificate, key)) as (url, _):
        https = url.replace("http://", "https://")
        assert GatewayClient(https, authority=certificate).participants() == []
        with pytest.raises(GatewayUnavailableError, match="give --ca FILE"):
            GatewayClient(https).participants()
    with pytest.raises(ConfigurationError, match=r"--ca .*gone"):
        GatewayClient(https, authority=tmp_path / "gone")


def test_a_service_that_speaks_no_http_is_not_told_to_be_started() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        client = GatewayClient(f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(GatewayUnavailableError, match="is it a fedattn gateway") as caught:
            client.participants()
        thread.join()
    assert "fedattn up" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "socks5://127.0.0.1:1", "nonsense://x"])
def test_a_near_gateway_is_reached_whatever_proxy_the_environment_names(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy)
    with answering("[]", "application/json") as (url, _):
        assert GatewayClient(url).participants() == []


def test_a_proxy_in_the_way_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://me:secret@127.0.0.1:1")
    with pytest.raises(GatewayUnavailableError) as caught:
        GatewayClient("http://gateway.example").participants()
    assert "gateway.example:80 (through the proxy http://127.0.0.1:1)" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["socks5", "nonsense"])
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://me:secret@127.0.0.1:1")
    with pytest.raises(ConfigurationError, match=f"all_proxy: .*{scheme}://127") as caught:
        GatewayClient("http://gateway.example")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "http://", "ftp://host", "http://host:port", "http://[::1"])
def test_what_is_no_url_is_named(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is no URL of a gateway"):
        GatewayClient(url)
