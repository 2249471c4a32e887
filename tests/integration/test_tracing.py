"""One question is one trace over all nodes it touches, and no text is in it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.semconv._incubating.attributes import (
    error_attributes,
    gen_ai_attributes,
    http_attributes,
    rpc_attributes,
    url_attributes,
)

from fedattn.model.loading import LoadedModel
from gateway.app import create_app
from tests.harness.gateway import make_settings, running
from tests.harness.networks import Network, running_network
from tests.harness.tiny import words
from tests.harness.traces import Trace, attributes_of, traced

CALLER = f"00-{'ab' * 16}-{'cd' * 8}-01"
QUESTION = words(60, 4)
KNOWN = {
    value
    for module in (
        error_attributes,
        gen_ai_attributes,
        http_attributes,
        rpc_attributes,
        url_attributes,
    )
    for value in vars(module).values()
    if isinstance(value, str)
}
PUBLISHED = "POST /v1/queries > fedattn.wire.v1.ParticipantService/Query > chat tiny"
OPENED = f"{PUBLISHED} > open session > fedattn.wire.v1.AggregatorService/OpenSession"


@asynccontextmanager
async def served(
    model: LoadedModel, folder: Path
) -> AsyncIterator[tuple[Network, httpx.AsyncClient]]:
    async with (
        running_network(model, folder) as network,
        calling(create_app(make_settings(network.aggregator))) as client,
    ):
        yield network, client


@asynccontextmanager
async def calling(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client


async def ask(
    client: httpx.AsyncClient, traceparent: str = CALLER, **fields: object
) -> httpx.Response:
    body = {"question": QUESTION, "plan": "all", "sampling": {"max_new_tokens": 5}, **fields}
    headers = {"traceparent": traceparent}
    return await client.post("/v1/queries", json=body, headers=headers)


async def settle(network: Network) -> None:
    """Wait until every node has ended its part."""
    for node in network.nodes.values():
        await node.admission.wait_idle()


@pytest.fixture
async def answered(
    model: LoadedModel, tmp_path: Path
) -> AsyncIterator[tuple[Trace, httpx.Response]]:
    with traced() as trace:
        async with served(model, tmp_path) as (network, client):
            response = await ask(client)
            await settle(network)
        yield trace, response


async def test_a_question_is_one_trace_over_all_nodes(
    answered: tuple[Trace, httpx.Response],
) -> None:
    trace, response = answered
    assert response.status_code == 200
    paths = {trace.path(span) for span in trace.spans()}
    exchange = "exchange > fedattn.wire.v1.AggregatorService/Exchange"
    assert paths >= {
        PUBLISHED,
        f"{OPENED} > invite > answer invitation",
        f"{OPENED} > contribute > prefill",
        f"{OPENED} > contribute > {exchange}",
        f"{PUBLISHED} > {exchange}",
        f"{PUBLISHED} > prefill",
        f"{PUBLISHED} > decode",
    }
    assert {path.partition(" > ")[0] for path in paths} == {"POST /v1/queries"}
    assert {span.context.trace_id for span in trace.spans()} == {int("ab" * 16, 16)}
    root = trace.only("POST /v1/queries")
    assert root.parent is not None
    assert root.parent.span_id == int("cd" * 8, 16)
    members = [attributes_of(span)["fedattn.node.id"] for span in trace.named("prefill")]
    assert sorted(map(str, members)) == ["node-0", "node-1", "publisher"]

    sessions = {attributes_of(span).get("fedattn.session.id") for span in trace.spans()}
    assert sessions == {None, response.json()["session_id"]}
    chat = attributes_of(trace.only("chat tiny"))
    assert chat["gen_ai.usage.output_tokens"] == 5
    assert chat["gen_ai.usage.input_tokens"] == response.json()["prompt_tokens"]
    waits = [event for span in trace.named("prefill") for event in span.events]
    assert {event.name for event in waits} == {"rows received"}


async def test_no_text_is_in_any_span(answered: tuple[Trace, httpx.Response]) -> None:
    trace, response = answered
    contexts = [words(11 * index + 5, 6 + index) for index in (0, 1)]
    texts = [QUESTION, response.json()["answer"], *contexts]
    assert all(len(text.split()) > 3 for text in texts)
    exported = trace.text()
    for word in {word for text in texts for word in text.split()}:
        assert f'"{word}' not in exported
        assert f" {word}" not in exported


async def test_names_are_those_of_the_conventions(answered: tuple[Trace, httpx.Response]) -> None:
    trace, _ = answered
    names = {name for span in trace.spans() for name in attributes_of(span)}
    assert {name for name in names if not name.startswith("fedattn.")} <= KNOWN


async def test_a_failure_is_told_by_its_code_alone(model: LoadedModel, tmp_path: Path) -> None:
    with traced() as trace:
        async with served(model, tmp_path) as (_, client):
            await ask(client, contributors=["canary"])
    chat = trace.only("chat tiny")
    assert not chat.status.is_ok
    assert chat.status.description is None
    assert attributes_of(chat)["error.type"] == "unknown_participant"
    assert chat.events == ()
    assert "canary" not in trace.text()


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "x" * 4000,
        f"00-{'ab' * 16}-{'cd' * 8}-01-more",
        f"01-{'ab' * 16}-{'cd' * 8}-01",
        f"00-{'00' * 16}-{'cd' * 8}-01",
        f"00-{'AB' * 16}-{'CD' * 8}-01",
    ],
)
async def test_a_malformed_traceparent_begins_a_trace_of_its_own(traceparent: str) -> None:
    with traced() as trace:
        async with running() as gateway:
            response = await ask(gateway.client, traceparent)
    assert response.status_code == 200
    assert trace.only("POST /v1/queries").parent is None


async def test_a_caller_may_ask_not_to_be_traced() -> None:
    with traced() as trace:
        async with running() as gateway:
            await ask(gateway.client, CALLER[:-1] + "0")
    assert trace.spans() == ()


async def test_who_looks_again_and_again_is_traced_only_below_a_span_of_its_own() -> None:
    with traced() as trace:
        async with running() as gateway:
            await gateway.client.get("/healthz")
            await gateway.client.get("/v1/participants")
            assert trace.spans() == ()
            await gateway.client.get("/v1/participants", headers={"traceparent": CALLER})
    assert trace.path(trace.only("fedattn.wire.v1.AggregatorService/ListNodes")) == (
        "GET /v1/participants > fedattn.wire.v1.AggregatorService/ListNodes"
    )
