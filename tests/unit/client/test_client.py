"""The client says what a gateway said, in types, and whatever goes wrong in one line."""

import socket
import threading
from pathlib import Path

import pytest

from fedattn.client import Client
from fedattn.client.options import (
    CompressionOptions,
    QueryOptions,
    SamplingOptions,
    SessionOptions,
)
from fedattn.core.errors import (
    ConfigurationError,
    FedAttnError,
    GatewayUnavailableError,
    InvalidRequestError,
    NodeBusyError,
    ProtocolMismatchError,
    RateLimitedError,
    SessionAbortedError,
)
from fedattn.rest.answers import WarmAnswer
from fedattn.rest.events import LayerEvent, TokenEvent
from fedattn.rest.fields import CompressionBody, SamplingBody
from fedattn.rest.query import QueryBody
from fedattn.rest.session import SessionBody
from fedattn.runtime.doors import tls_context
from tests.harness.answers import sample_answer
from tests.harness.https import write_certificate
from tests.unit.client.gateways import JSON, Blocking, Said, answering, events, problem

BODY = QueryBody(question="Who?", deadline_s=5)
BUSY = problem(429, "node_busy", "node-a takes part in 4 sessions already")
REPORT = ("report", sample_answer().model_dump_json())
NOBODY = Said(content="[]", media_type=JSON)


def test_events_come_typed_and_unknown_ones_are_passed_over(client: Blocking) -> None:
    stream = events(
        ("layer", '{"layer": 7, "num_rows": 3, "wait_s": 0.5, "arrivals": [], "new": 1}'),
        ("weather", '{"sky": "blue"}'),
        ("token", '{"text": "Pier"}'),
        REPORT,
    )
    with answering(Said(content=stream)) as gateway:
        layer, token, answer = client.call(gateway.url, "stream", BODY)
    assert layer == LayerEvent(layer=7, num_rows=3, wait_s=0.5, arrivals=[])
    assert token == TokenEvent(text="Pier")
    assert answer == sample_answer()
    (sent,) = gateway.bodies
    assert QueryBody.model_validate(sent) == BODY.model_copy(update={"stream": True})


def test_ask_waits_for_the_answer_to_a_question_with_options(client: Blocking) -> None:
    with answering(Said(content=events(REPORT))) as gateway:
        answer = client.call(
            gateway.url, "ask", "Who?", contributors=["a"], sampling={"max_new_tokens": 5}
        )
    assert answer == sample_answer()
    (sent,) = gateway.bodies
    assert (sent["question"], sent["contributors"]) == ("Who?", ["a"])
    assert sent["sampling"]["max_new_tokens"] == 5


def test_warm_takes_options_too(client: Blocking) -> None:
    warm = WarmAnswer(session_id="5f2b7c1e9a", kv_bytes=7, participants=[])
    with answering(Said(content=warm.model_dump_json(), media_type=JSON)) as gateway:
        assert client.call(gateway.url, "warm", plan="7,9") == warm
    assert gateway.lines == ["POST /v1/warm"]
    assert SessionBody.model_validate(gateway.bodies[0]) == SessionBody(plan="7,9")


def test_an_option_that_does_not_fit_is_named_before_anything_is_sent(client: Blocking) -> None:
    with pytest.raises(InvalidRequestError, match="mood"):
        client.call("127.0.0.1:1", "ask", "Who?", mood="good")


def test_options_are_the_fields_of_the_bodies() -> None:
    assert SessionOptions.__annotations__.keys() == SessionBody.model_fields.keys()
    apart = {"question", "stream", "background"}
    assert QueryOptions.__annotations__.keys() == QueryBody.model_fields.keys() - apart
    for options, body in ((SamplingOptions, SamplingBody), (CompressionOptions, CompressionBody)):
        assert options.__annotations__.keys() == body.__dataclass_fields__.keys()


@pytest.mark.parametrize("method", ["ask", "warm", "participants"])
def test_a_problem_is_raised_as_its_own_class(client: Blocking, method: str) -> None:
    with answering(BUSY) as gateway, pytest.raises(NodeBusyError, match="node-a takes part"):
        client.call(gateway.url, method, *([BODY] if method == "ask" else []))


def test_a_problem_during_the_stream_is_raised_too(client: Blocking) -> None:
    stream = events(("token", '{"text": "P"}'), ("error", BUSY.content))
    with answering(Said(content=stream)) as gateway, pytest.raises(NodeBusyError):
        client.call(gateway.url, "stream", BODY)


def test_who_has_had_its_share_is_told_for_how_long(client: Blocking) -> None:
    refusal = problem(429, "rate_limited", "a day's bytes are used up", Retry_After="7200")
    with answering(refusal) as gateway, pytest.raises(RateLimitedError) as caught:
        client.call(gateway.url, "ask", BODY, retries=2)
    assert caught.value.retry_after_s == 7200
    assert len(gateway.lines) == 1  # nobody wants to wait for hours


def test_a_problem_of_many_lines_is_one(client: Blocking) -> None:
    with answering(problem(429, "node_busy", "busy\nerror [model]: gone")) as gateway:
        with pytest.raises(NodeBusyError, match=r"^busy error \[model\]: gone$"):
            client.call(gateway.url, "ask", BODY)


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (Said(content=""), SessionAbortedError, "without a report"),
        (
            Said(content="<html>", media_type="text/html"),
            GatewayUnavailableError,
            "is it a fedattn gateway",
        ),
        (
            Said(content="<html>", media_type="text/html", status=502),
            GatewayUnavailableError,
            "answered 502 without a problem",
        ),
        (Said(content="event: report\ndata: {}\n\n"), ProtocolMismatchError, "version"),
        (Said(content="event: token\ndata: x\n\n"), ProtocolMismatchError, "version"),
    ],
)
def test_what_is_no_answer_is_one_line(
    client: Blocking, said: Said, error: type[FedAttnError], words: str
) -> None:
    with answering(said) as gateway, pytest.raises(error, match=words):
        client.call(gateway.url, "ask", BODY)


def test_nobody_there_is_one_line(client: Blocking) -> None:
    with pytest.raises(GatewayUnavailableError, match=r"at 127\.0\.0\.1:1 cannot be reached"):
        client.call("127.0.0.1:1", "participants")


def test_the_clock_of_the_gateway_is_told() -> None:
    with answering(NOBODY) as gateway, Client(gateway.url, retries=0) as client:
        assert client.date().endswith(" GMT")
        assert gateway.url.endswith(str(client.endpoint.address))


def test_gateway_and_key_come_from_the_environment_unless_given(
    client: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(NOBODY) as gateway:
        monkeypatch.setenv("FEDATTN_GATEWAY", gateway.url)
        client.call(None, "participants")  # type: ignore[arg-type]
        monkeypatch.setenv("FEDATTN_API_KEY", "fa_y")
        client.call(None, "participants")  # type: ignore[arg-type]
        monkeypatch.setenv("FEDATTN_GATEWAY", "127.0.0.1:1")
        client.call(gateway.url, "participants", api_key="fa_x")
    sent = [head.get("authorization") or head.get("Authorization") for head in gateway.heads]
    assert sent == [None, "Bearer fa_y", "Bearer fa_x"]


def test_plain_http_behind_https_is_told_as_such(client: Blocking) -> None:
    with answering(NOBODY) as gateway:
        with pytest.raises(GatewayUnavailableError, match="no TLS that this machine trusts"):
            client.call(gateway.url.replace("http://", "https://"), "participants")


def test_a_key_of_several_lines_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ConfigurationError, match="fedattn keys create"):
        Client("http://127.0.0.1:1", api_key="fa_x\ny")


def test_an_https_gateway_is_trusted_by_the_authority_that_is_given(
    client: Blocking, tmp_path: Path
) -> None:
    certificate, key = write_certificate(tmp_path)
    with answering(NOBODY, tls=tls_context(certificate, key)) as gateway:
        assert client.call(gateway.url, "participants", ca=certificate) == []
        with pytest.raises(GatewayUnavailableError, match="--ca FILE; ca= in Python"):
            client.call(gateway.url, "participants")
    with pytest.raises(ConfigurationError, match=r"--ca .*gone"):
        client.call(gateway.url, "participants", ca=tmp_path / "gone")


def test_a_service_that_speaks_no_http_is_not_told_to_be_started(client: Blocking) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(GatewayUnavailableError, match="is it a fedattn gateway") as caught:
            client.call(f"127.0.0.1:{server.getsockname()[1]}", "participants")
        thread.join()
    assert "fedattn up" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "socks5://127.0.0.1:1", "nonsense://x"])
def test_a_near_gateway_is_reached_whatever_proxy_the_environment_names(
    client: Blocking, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy)
    with answering(NOBODY) as gateway:
        assert client.call(gateway.url, "participants") == []


def test_a_proxy_in_the_way_is_named_without_its_password(
    client: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://me:secret@127.0.0.1:1")
    with pytest.raises(GatewayUnavailableError) as caught:
        client.call("http://gateway.example", "participants")
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
        Client("http://gateway.example")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://", "ftp://host", "http://host:port", "http://[::1"])
def test_what_is_no_url_is_named(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is no URL of a gateway"):
        Client(url)
