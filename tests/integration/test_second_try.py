"""A query that is put once more, as its clients see it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx_sse import EventSource

from fedattn.core.errors import NotEnoughParticipantsError
from fedattn.rest.answers import EVENT_MODELS, Retried
from fedattn.wire.v1 import participant_pb2
from tests.harness.gateway import (
    ANSWER,
    QueryEvent,
    Script,
    check_problem,
    failing,
    good_script,
    opened,
    running,
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
