"""A query that is put once more, as its clients see it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, aconnect_sse
from prometheus_client import CollectorRegistry

from fedattn.core.errors import NotEnoughParticipantsError
from fedattn.rest.answers import Retried
from fedattn.rest.events import EVENT_MODELS
from fedattn.wire.v1 import participant_pb2
from tests.harness.gateway import (
    ANSWER,
    QUESTION,
    Gate,
    QueryEvent,
    Script,
    check_problem,
    failing,
    good_script,
    opened,
    running,
    served,
)

TOO_FEW = NotEnoughParticipantsError("1 participants are left: node-a is lost", lost=("node-a",))


def one_after_the_other(*scripts: Script) -> Script:
    """Each query by the next script."""
    left = iter(scripts)

    async def script(request: participant_pb2.QueryRequest) -> AsyncIterator[QueryEvent]:
        async for event in next(left)(request):
            yield event

    return script


async def test_a_stream_says_who_was_lost_and_begins_anew() -> None:
    script = one_after_the_other(failing(TOO_FEW, opened()), good_script)
    async with running(script) as gateway:
        response = await gateway.ask(stream=True)
        events = [event async for event in EventSource(response).aiter_sse()]
        again = gateway.participant.requests[1].options
    names = [event.event for event in events]
    assert names == ["session", "retried", "session", "layer", "token", "token", "report"]
    retried = EVENT_MODELS["retried"].model_validate_json(events[1].data)
    assert retried == Retried(
        without=["node-a"], code="not_enough_participants", detail=str(TOO_FEW)
    )
    assert list(again.without) == ["node-a"]


async def test_another_publisher_answers_if_none_was_named_and_the_first_is_gone() -> None:
    async with running(publishers=("desk-1", "desk-2")) as gateway:
        gateway.aggregator.gone.add("desk-1")
        answer = (await gateway.ask()).json()
        assert answer["answer"] == ANSWER
        assert answer["retried"]["without"] == ["desk-1"]
        assert answer["retried"]["detail"] == "node desk-1 has left"
        for how in ({"publisher": "desk-1"}, {"retry": False}):
            check_problem(await gateway.ask(**how), 503, "publisher_unavailable")


async def test_the_publisher_of_the_settings_is_replaced_by_nobody() -> None:
    flags = ("--publisher=desk-1",)
    async with running(publishers=("desk-1", "desk-2"), flags=flags) as gateway:
        gateway.aggregator.gone.add("desk-1")
        check_problem(await gateway.ask(), 503, "publisher_unavailable")


@pytest.mark.parametrize(
    ("path", "asked", "first"),
    [
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "Who?"}]},
            '"role": "assistant"',
        ),
        ("/v1/responses", {"input": "Who?"}, "event: response.created"),
    ],
)
async def test_two_tries_are_one_answer_in_the_api_of_openai(
    path: str, asked: dict[str, Any], first: str
) -> None:
    script = one_after_the_other(failing(TOO_FEW, opened()), good_script)
    body = {"model": "publisher/SmolLM2-135M-Instruct", "stream": True, **asked}
    async with running(script) as gateway:
        words = (await gateway.client.post(path, json=body)).text
    assert words.count(first) == 1
    assert ": asked again without node-a" in words


async def test_a_second_try_keeps_its_place_though_others_wait() -> None:
    goes_on = asyncio.Event()

    async def fails_late(_: participant_pb2.QueryRequest) -> AsyncIterator[QueryEvent]:
        yield opened()
        await goes_on.wait()
        raise TOO_FEW

    script = one_after_the_other(fails_late, good_script, good_script)
    registry = CollectorRegistry()
    body = {"question": QUESTION, "stream": True, "deadline_s": 60}
    async with (
        running(script, max_concurrent_queries=1, registry=registry) as gateway,
        served(gateway) as (url, _),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
        aconnect_sse(client, "POST", "/v1/queries", json=body) as first,
    ):
        events = first.aiter_sse()
        assert (await anext(events)).event == "session"
        async with aconnect_sse(client, "POST", "/v1/queries", json=body) as second:
            behind = second.aiter_sse()
            assert (await anext(behind)).event == "queued"
            goes_on.set()
            assert [event.event async for event in events][:2] == ["retried", "session"]
            assert [event.event async for event in behind][-1] == "report"
        options = [request.options for request in gateway.participant.requests]
    assert [list(one.without) for one in options] == [[], ["node-a"], []]
    assert options[0].deadline_s == 60
    assert 0 < options[1].deadline_s < 60
    outcomes = {
        outcome: registry.get_sample_value("fedattn_gateway_queries_total", {"outcome": outcome})
        for outcome in ("answered", "not_enough_participants")
    }
    assert outcomes == {"answered": 2, "not_enough_participants": 1}
    assert registry.get_sample_value("fedattn_gateway_wait_seconds_count") == 2


async def test_a_second_try_at_a_full_publisher_waits_or_ends_as_the_first_did() -> None:
    gate, registry = Gate(), CollectorRegistry()
    desks = ("desk-1", "desk-2")
    async with (
        running(gate, max_concurrent_queries=2, publishers=desks, registry=registry) as gateway,
        served(gateway) as (url, _),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        gateway.aggregator.gone.add("desk-1")
        full = asyncio.create_task(
            client.post("/v1/queries", json={"question": QUESTION, "publisher": "desk-2"})
        )
        await gateway.participant.started.wait()
        check_problem(await gateway.ask(max_wait_s=0), 503, "publisher_unavailable")
        labels = {"outcome": "node_busy"}  # which nobody was told
        assert registry.get_sample_value("fedattn_gateway_queries_total", labels) is None
        body = {"question": QUESTION, "stream": True}
        async with aconnect_sse(client, "POST", "/v1/queries", json=body) as source:
            events = source.aiter_sse()
            assert [(await anext(events)).event for _ in range(2)] == ["retried", "queued"]
            gate.open.set()
            assert [event.event async for event in events] == ["session", "report"]
        assert (await full).status_code == 200
        assert list(gateway.participant.requests[1].options.without) == ["desk-1"]


async def test_a_second_publisher_that_is_gone_too_is_named_with_the_first() -> None:
    async with running(publishers=("desk-1", "desk-2")) as gateway:
        gateway.aggregator.gone |= {"desk-1", "desk-2"}
        detail = check_problem(await gateway.ask(), 503, "publisher_unavailable")["detail"]
    assert detail == (
        "node desk-2 has left (in a second try without desk-1; the first: node desk-1 has left)"
    )


async def test_a_job_keeps_its_second_try() -> None:
    script = one_after_the_other(failing(TOO_FEW, opened()), good_script)
    async with running(script) as gateway:
        job = (await gateway.ask(background=True, deadline_s=60)).json()
        followed = await gateway.client.get(f"/v1/queries/{job['id']}/events")
        options = [request.options for request in gateway.participant.requests]
    names = [line[7:] for line in followed.text.splitlines() if line.startswith("event: ")]
    assert names == ["session", "retried", "session", "layer", "token", "token", "report"]
    assert options[0].deadline_s == 60
    assert 0 < options[1].deadline_s < 60  # the first try has begun it
