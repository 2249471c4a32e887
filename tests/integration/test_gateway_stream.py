"""Answers as server-sent events, and their end when somebody leaves."""

import asyncio
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse
from pydantic import BaseModel

from fedattn.core.errors import SessionAbortedError
from fedattn.rest.events import EVENT_MODELS
from tests.harness.gateway import (
    ANSWER,
    QUESTION,
    SESSION_ID,
    Gate,
    Harness,
    failing,
    opened,
    running,
    served,
)

STREAMED = {"question": QUESTION, "stream": True}


async def events_of(gateway: Harness) -> list[ServerSentEvent]:
    response = await gateway.ask(stream=True)
    assert response.status_code == 200
    return [event async for event in EventSource(response).aiter_sse()]


def parse(event: ServerSentEvent) -> Any:
    model: type[BaseModel] = EVENT_MODELS[event.event]
    return model.model_validate_json(event.data, strict=True)


async def test_events_come_in_order_and_fit_their_schemas() -> None:
    async with running() as gateway:
        events = await events_of(gateway)
        document = (await gateway.ask()).json()
    assert [event.event for event in events] == ["session", "layer", "token", "token", "report"]
    session, layer, *tokens, report = [parse(event) for event in events]
    assert (session.session_id, session.prefix_len) == (SESSION_ID, 2)
    assert [member.model_dump() for member in session.members] == [
        {
            "node_id": "node-a",
            "role": "contributor",
            "span_start": 2,
            "span_stop": 5,
            "sync_layers": [7],
        },
        {
            "node_id": "publisher",
            "role": "publisher",
            "span_start": 5,
            "span_stop": 9,
            "sync_layers": [7, 8],
        },
    ]
    assert [(node.node_id, node.detail) for node in session.excluded] == [
        ("node-c", "model differs")
    ]
    arrival = {"node_id": "node-a", "num_rows": 3, "num_bytes": 100, "wait_s": 0.25}
    assert layer.model_dump() == {
        "layer": 7, "num_rows": 3, "wait_s": 0.25, "arrivals": [arrival]
    }  # fmt: skip
    assert "".join(token.text for token in tokens) == ANSWER
    assert report.model_dump() == document


async def test_failure_after_the_start_is_the_last_event() -> None:
    async with running(failing(SessionAbortedError("node-a vanished"), opened())) as gateway:
        events = await events_of(gateway)
    assert [event.event for event in events] == ["session", "error"]
    problem = parse(events[-1])
    assert (problem.code, problem.status) == ("session_aborted", 502)
    assert problem.detail == "node-a vanished"


async def test_unforeseen_failure_after_the_start_has_fixed_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_result: object) -> None:
        raise RuntimeError(QUESTION)

    monkeypatch.setattr("gateway.report.answer_from_wire", broken)
    async with running() as gateway:
        events = await events_of(gateway)
    assert events[-1].event == "error"
    assert parse(events[-1]).code == "internal"
    assert QUESTION not in events[-1].data


async def test_events_arrive_while_the_query_runs() -> None:
    gate = Gate()
    async with (
        running(gate) as gateway,
        served(gateway) as (url, _),
        httpx.AsyncClient(base_url=url) as client,
        aconnect_sse(client, "POST", "/v1/queries", json=STREAMED) as source,
    ):
        events = source.aiter_sse()
        assert (await anext(events)).event == "session"
        gate.open.set()
        assert (await anext(events)).event == "report"


async def test_client_that_leaves_during_the_stream_cancels_the_query() -> None:
    gate = Gate()
    async with running(gate, max_concurrent_queries=1) as gateway, served(gateway) as (url, _):
        async with (
            httpx.AsyncClient(base_url=url) as client,
            aconnect_sse(client, "POST", "/v1/queries", json=STREAMED) as source,
        ):
            await anext(source.aiter_sse())
        await gateway.participant.cancelled.wait()
        gate.open.set()
        assert (await gateway.ask()).status_code == 200  # its place is free


@pytest.mark.parametrize("waits_first", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("stream", [False, True], ids=["document", "stream"])
async def test_client_that_leaves_before_an_answer_cancels_the_query(
    waits_first: bool, stream: bool
) -> None:
    gate = Gate(waits_first=waits_first)
    body = {"question": QUESTION, "stream": stream}
    async with running(gate, max_concurrent_queries=1) as gateway, served(gateway) as (url, _):
        async with httpx.AsyncClient(base_url=url) as client:
            asking = asyncio.create_task(client.post("/v1/queries", json=body))
            await gateway.participant.started.wait()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await gateway.participant.cancelled.wait()
        gate.open.set()
        assert (await gateway.ask()).status_code == 200  # its place is free


async def test_stop_lets_a_running_query_end() -> None:
    gate = Gate()
    async with (
        running(gate) as gateway,
        served(gateway, grace_s=60) as (url, stopping),
        httpx.AsyncClient(base_url=url) as client,
        aconnect_sse(client, "POST", "/v1/queries", json=STREAMED) as source,
    ):
        events = source.aiter_sse()
        await anext(events)
        stopping.set()
        gate.open.set()
        assert (await anext(events)).event == "report"


async def test_stop_cancels_a_query_beyond_the_grace() -> None:
    async with (
        running(Gate()) as gateway,
        served(gateway, grace_s=0) as (url, stopping),
        httpx.AsyncClient(base_url=url) as client,
        aconnect_sse(client, "POST", "/v1/queries", json=STREAMED) as source,
    ):
        await anext(source.aiter_sse())
        stopping.set()
        await gateway.participant.cancelled.wait()
