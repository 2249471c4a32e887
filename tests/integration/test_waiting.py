"""Queries that wait for a place: what their clients are told meanwhile, and how waiting ends."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, aconnect_sse
from prometheus_client import CollectorRegistry

from fedattn.core.errors import NodeBusyError
from fedattn.wire.v1 import participant_pb2
from gateway import line
from tests.harness.gateway import (
    QUESTION,
    Gate,
    Harness,
    QueryEvent,
    check_problem,
    failing,
    good_script,
    running,
    served,
)

ASKED: dict[str, Any] = {"question": QUESTION}
CHAT = {"model": "publisher", "messages": [{"role": "user", "content": QUESTION}], "stream": True}


@asynccontextmanager
async def streaming(
    client: httpx.AsyncClient, path: str = "/v1/queries", **fields: Any
) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
    """Ask; names and documents of the events as they come."""
    body = {**ASKED, "stream": True, **fields}
    async with aconnect_sse(client, "POST", path, json=body) as source:
        yield events_of(source)


async def events_of(source: EventSource) -> AsyncIterator[tuple[str, Any]]:
    async for event in source.aiter_sse():
        yield event.event, event.json()


async def until_waiting(events: AsyncIterator[tuple[str, Any]], of: int) -> None:
    """Read until so many wait."""
    async for name, told in events:
        assert name == "queued"
        if told["of"] == of:
            return
    raise AssertionError("the stream ended before")


@asynccontextmanager
async def full(
    registry: CollectorRegistry | None = None, *flags: str
) -> AsyncIterator[tuple[Harness, httpx.AsyncClient, Gate]]:
    """A gateway whose only place is taken until the gate opens, and a client of it."""
    gate = Gate()
    async with (
        running(gate, max_concurrent_queries=1, registry=registry, flags=flags) as gateway,
        served(gateway) as (url, _),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
        streaming(client) as first,
    ):
        assert (await anext(first))[0] == "session"
        yield gateway, client, gate


async def test_a_stream_tells_its_place_until_it_has_one() -> None:
    async with full() as (gateway, client, gate), streaming(client, deadline_s=60) as waiting:
        assert await anext(waiting) == ("queued", {"place": 1, "of": 1, "estimate_s": None})
        gate.open.set()
        assert [name async for name, _ in waiting] == ["session", "report"]
    first, second = gateway.participant.requests
    assert first.options.deadline_s == 120  # it has not waited
    assert 0 < second.options.deadline_s < 60


async def test_a_document_waits_too_and_so_does_fetching_ahead() -> None:
    async with full() as (_, client, gate):
        asking = [
            asyncio.create_task(client.post("/v1/queries", json=ASKED)),
            asyncio.create_task(client.post("/v1/warm", json={})),
        ]
        async with streaming(client) as behind:
            await until_waiting(behind, 3)
            gate.open.set()
            assert [response.status_code for response in await asyncio.gather(*asking)] == [200] * 2
            assert (await anext(behind))[0] in {"queued", "session"}


async def test_a_client_that_goes_away_leaves_the_line_at_once() -> None:
    registry = CollectorRegistry()
    async with full(registry) as (gateway, client, _):
        leaving = asyncio.create_task(client.post("/v1/queries", json=ASKED))
        async with streaming(client) as streamed, streaming(client) as last:
            await until_waiting(last, 3)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            await until_waiting(last, 2)
            await anext(streamed)
            assert registry.get_sample_value("fedattn_gateway_queries_waiting") == 2
        async with streaming(client) as new:
            await until_waiting(new, 1)
    assert len(gateway.participant.requests) == 1


async def test_a_query_that_waits_for_longer_than_it_may_is_refused() -> None:
    async with full() as (_, client, _), streaming(client, deadline_s=0.05) as waiting:
        (_, told), (name, problem) = [event async for event in waiting]
        assert told["place"] == 1
        assert (name, problem["code"], problem["status"]) == ("error", "node_busy", 429)
        refused = await client.post("/v1/queries", json={**ASKED, "max_wait_s": 0.05})
        detail = check_problem(refused, 429, "node_busy")["detail"]
        assert "has waited 0.05 s for publisher and is at place 1 of 1" in detail


async def test_a_full_line_says_when_to_come_again() -> None:
    async with full(None, "--max-waiting=0") as (_, client, gate):
        refused = await client.post("/v1/queries", json=ASKED)
        gate.open.set()
    check_problem(refused, 429, "node_busy")
    assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_streams_of_openais_api_get_comments_while_they_wait(path: str) -> None:
    body = {**CHAT, "input": QUESTION}
    del body["input" if path.endswith("completions") else "messages"]
    async with full() as (_, client, gate):
        async with client.stream("POST", path, json=body) as response:
            lines = response.aiter_lines()
            assert await anext(lines) == ": waiting: 1 of 1"
            gate.open.set()
            assert any("completed" in line or "[DONE]" in line for line in [x async for x in lines])


async def test_a_job_tells_where_it_stands_and_keeps_none_of_it() -> None:
    async with full() as (_, client, gate):
        job = (await client.post("/v1/queries", json={**ASKED, "background": True})).json()
        address = f"/v1/queries/{job['id']}"
        async with aconnect_sse(client, "GET", f"{address}/events") as source:
            events = source.aiter_sse()
            queued = await anext(events)
            assert (queued.event, queued.id) == ("queued", "")
            assert (await client.get(address)).json()["queued"] == queued.json()
            gate.open.set()
            assert [(event.event, event.id) async for event in events] == [
                ("session", "1"), ("report", "2")
            ]  # fmt: skip
        assert (await client.get(address)).json()["queued"] is None
        again = await client.get(f"{address}/events")
        assert "queued" not in again.text


def refusals(count: int) -> Iterator[NodeBusyError]:
    return iter([NodeBusyError("all places are taken")] * count)


async def test_what_a_node_refuses_waits_again_and_is_answered_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line, "FIRST_PAUSE_S", 0.0)
    busy, registry = refusals(2), CollectorRegistry()

    async def script(request: participant_pb2.QueryRequest) -> AsyncIterator[QueryEvent]:
        for error in busy:
            raise error
        async for event in good_script(request):
            yield event

    async with running(script, registry=registry) as gateway:
        response = await gateway.ask(stream=True)
        assert len(gateway.participant.requests) == 3
    names = [line[7:] for line in response.text.splitlines() if line.startswith("event: ")]
    assert names == ["queued", "queued", "session", "layer", "token", "token", "report"]
    counted = {
        name: registry.get_sample_value(f"fedattn_gateway_{name}", labels)
        for name, labels in (
            ("queries_put_back_total", {}),
            ("queries_running", {}),
            ("queries_waiting", {}),
            ("wait_seconds_count", {}),
            ("queries_total", {"outcome": "answered"}),
        )
    }
    assert list(counted.values()) == [2, 0, 0, 1, 1]
    assert (
        registry.get_sample_value("fedattn_gateway_queries_total", {"outcome": "node_busy"}) is None
    )


async def test_a_node_that_stays_busy_is_the_end_when_patience_ends() -> None:
    registry = CollectorRegistry()
    async with running(failing(NodeBusyError("no place")), registry=registry) as gateway:
        at_once = await gateway.ask(max_wait_s=0)
        later = await gateway.ask(max_wait_s=0.05)
    assert "no place" in check_problem(at_once, 429, "node_busy")["detail"]
    assert (
        "allow more; it was refused for now: no place"
        in check_problem(later, 429, "node_busy")["detail"]
    )
    assert registry.get_sample_value("fedattn_gateway_queries_total", {"outcome": "node_busy"}) == 2
