"""The gateway as clients of OpenAI's API find it, asked by OpenAI's own client."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk

from fedattn.core.errors import (
    FedAttnError,
    NoContributorsError,
    NodeBusyError,
    SessionAbortedError,
)
from fedattn.rest.answers import QueryAnswer
from fedattn.runtime.api_keys import ApiKey, KeyFile
from fedattn.wire.enums import SPEAKERS
from fedattn.wire.v1 import participant_pb2
from tests.harness.gateway import (
    ANSWER,
    QUESTION,
    SESSION_ID,
    Harness,
    Script,
    failing,
    opened,
    result,
    running,
    served,
)

MODEL = "publisher/SmolLM2-135M-Instruct"
ASKED: list[Any] = [{"role": "user", "content": QUESTION}]


@asynccontextmanager
async def client_of(
    script: Script | None = None, *, key: str = "none", **how: Any
) -> AsyncIterator[tuple[AsyncOpenAI, Harness]]:
    """OpenAI's client of a gateway before a publisher that follows a script."""
    async with running(script, **how) as gateway, served(gateway) as (url, _):
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            yield client, gateway


async def chunks_of(client: AsyncOpenAI, **more: Any) -> list[ChatCompletionChunk]:
    stream = await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True, **more)
    return [chunk async for chunk in stream]


async def test_a_chat_is_answered_with_usage_and_report() -> None:
    async with client_of() as (client, gateway):
        done = await client.chat.completions.create(model=MODEL, messages=ASKED)
        asked = gateway.participant.requests[0]
    assert (asked.question, list(asked.turns)) == (QUESTION, [])
    assert done.choices[0].message.content == ANSWER
    assert (done.choices[0].finish_reason, done.object, done.model) == (
        "stop", "chat.completion", MODEL,
    )  # fmt: skip
    assert done.id == f"chatcmpl-{SESSION_ID}"
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens) == (
        9, 5, 14,
    )  # fmt: skip
    assert done.model_extra is not None
    report = QueryAnswer.model_validate(done.model_extra["fedattn"])
    assert (report.session_id, report.totals.kv_bytes) == (SESSION_ID, 120)


async def test_a_streamed_chat_begins_with_the_role_and_ends_with_reason_and_report() -> None:
    async with client_of() as (client, _):
        plain = await chunks_of(client)
        counted = await chunks_of(client, stream_options={"include_usage": True})
    role, *texts, last = [chunk.choices[0] for chunk in plain]
    assert role.delta.model_dump(exclude_unset=True) == {"role": "assistant", "content": ""}
    assert "".join(choice.delta.content or "" for choice in texts) == ANSWER
    assert all(
        choice.delta.model_dump(exclude_unset=True).keys() == {"content"} for choice in texts
    )
    assert (last.delta.model_dump(exclude_unset=True), last.finish_reason) == ({}, "stop")
    assert plain[-1].model_extra is not None
    assert plain[-1].model_extra["fedattn"]["answer"] == ANSWER
    assert {chunk.id for chunk in plain} == {f"chatcmpl-{SESSION_ID}"}
    assert [chunk.usage for chunk in counted[:-1]] == [None] * (len(counted) - 1)
    assert (counted[-1].choices, counted[-1].usage and counted[-1].usage.total_tokens) == ([], 14)


async def test_a_stream_is_kept_alive_by_comments_and_ends_with_done() -> None:
    async with running() as gateway:
        body = {"model": MODEL, "messages": ASKED, "stream": True}
        text = (await gateway.client.post("/v1/chat/completions", json=body)).text
    assert ": layer 7" in text.splitlines()
    assert text.splitlines()[-2:] == ["data: [DONE]", ""]


async def test_an_answer_that_was_cut_says_length() -> None:
    async def script(request: Any) -> AsyncIterator[Any]:
        cut = result()
        cut.finish_reason = participant_pb2.FINISH_REASON_LENGTH
        event = opened()
        yield event
        yield type(event)(result=cut)

    async with client_of(script) as (client, _):
        done = await client.chat.completions.create(model=MODEL, messages=ASKED)
        response = await client.responses.create(model=MODEL, input=QUESTION)
    assert done.choices[0].finish_reason == "length"
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


async def test_earlier_turns_reach_the_publisher_in_order() -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "Be terse."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Who"}, {"type": "text", "text": "?"}],
        },
        {"role": "assistant", "content": "Ward 7.", "refusal": None, "tool_calls": None},
        {"role": "user", "content": QUESTION, "name": "anna"},
    ]
    async with client_of() as (client, gateway):
        await client.chat.completions.create(model=MODEL, messages=messages)
        await client.responses.create(
            model=MODEL, instructions="Be terse.", input=messages[1:3] + ASKED
        )
        asked = gateway.participant.requests
    for request in asked:
        assert request.question == QUESTION
        turns = [(SPEAKERS.from_wire(turn.speaker).value, turn.text) for turn in request.turns]
        assert turns == [("system", "Be terse."), ("user", "Who\n?"), ("assistant", "Ward 7.")]


async def test_parameters_and_options_reach_the_publisher() -> None:
    async with client_of() as (client, gateway):
        await client.chat.completions.create(
            model="publisher", messages=ASKED, temperature=0.5, top_p=0.9, seed=3, stop="\n",
            max_completion_tokens=7, max_tokens=9, n=1, user="u", store=True, metadata={"a": "b"},
            parallel_tool_calls=True, presence_penalty=0, frequency_penalty=0, logprobs=False,
            response_format={"type": "text"}, tools=[], tool_choice="auto",
            extra_body={"fedattn": {"plan": "1,3", "compression": {"codec": "bf16"},
                                    "contributors": ["node-a"], "share": "nothing"}},
        )  # fmt: skip
        await client.chat.completions.create(model="publisher", messages=ASKED, temperature=1)
        await client.chat.completions.create(model="publisher", messages=ASKED, temperature=1)
        asked, first, second = gateway.participant.requests
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.5, 0.9, 3)
    assert (sampling.max_new_tokens, list(sampling.stop)) == (7, ["\n"])
    assert (asked.plan, list(asked.options.contributors)) == ("1,3", ["node-a"])
    assert first.sampling.seed != second.sampling.seed


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("n", {"n": 2}),
        ("tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        ("presence_penalty", {"presence_penalty": 0.5}),
        ("response_format", {"response_format": {"type": "json_object"}}),
        ("temperature", {"temperature": 11}),
        ("reasoning_effort", {"reasoning_effort": "high"}),
        ("mood", {"extra_body": {"mood": "good"}}),
        ("fedattn.plans", {"extra_body": {"fedattn": {"plans": "all"}}}),
        ("messages.0.content", {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:,"}}]}]}),
        ("messages.0.role", {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}),
        ("messages", {"messages": [{"role": "assistant", "content": "x"}]}),
        ("messages", {"messages": []}),
    ],
)  # fmt: skip
async def test_what_cannot_be_followed_is_named(param: str, fields: dict[str, Any]) -> None:
    async with client_of() as (client, gateway):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(**{"model": MODEL, "messages": ASKED} | fields)
        assert gateway.participant.requests == []
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")
    assert caught.value.code == "invalid_request"
    assert any(f"{param}{mark}" in caught.value.message for mark in (": ", "`"))


async def test_a_response_is_answered() -> None:
    async with client_of() as (client, gateway):
        response = await client.responses.create(
            model=MODEL, input=QUESTION, max_output_tokens=20, instructions="Be terse."
        )
        asked = gateway.participant.requests[0]
    assert (asked.question, asked.sampling.max_new_tokens) == (QUESTION, 20)
    assert (response.output_text, response.status) == (ANSWER, "completed")
    assert response.usage is not None
    assert response.usage.total_tokens == 14
    assert response.model_extra is not None
    assert response.model_extra["fedattn"]["session_id"] == SESSION_ID


async def test_a_streamed_response_is_what_the_client_puts_together() -> None:
    async with client_of() as (client, _):
        async with client.responses.stream(model=MODEL, input=ASKED) as stream:
            events = [event async for event in stream]
            final = await stream.get_final_response()
    assert [event.type.removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "content_part.added",
        "output_text.delta", "output_text.delta", "output_text.done", "content_part.done",
        "output_item.done", "completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.output_text == ANSWER


async def test_a_response_that_refers_to_what_nobody_kept_is_refused() -> None:
    async with client_of() as (client, _):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model=MODEL, input="x", previous_response_id="resp_1")
    assert caught.value.param == "previous_response_id"


async def test_models_are_the_publishers_the_default_first() -> None:
    how: dict[str, Any] = {
        "publishers": ["berths", "publisher"],
        "flags": ["--publisher=publisher"],
    }
    async with client_of(**how) as (client, _):
        models = [model async for model in client.models.list()]
        one = await client.models.retrieve("berths/SmolLM2-135M-Instruct")
        bare = await client.models.retrieve("berths")
    assert [(model.id, model.owned_by) for model in models] == [
        (MODEL, "publisher"),
        ("berths/SmolLM2-135M-Instruct", "berths"),
    ]
    assert one.id == bare.id == "berths/SmolLM2-135M-Instruct"
    assert one.object == "model"


@pytest.mark.parametrize("name", ["gpt-4o", "publisher/other", "node-a", "SmolLM2-135M-Instruct"])
async def test_an_unknown_model_is_not_found(name: str) -> None:
    async with client_of() as (client, _):
        for asking in (
            client.models.retrieve(name),
            client.chat.completions.create(model=name, messages=ASKED),
            client.responses.create(model=name, input="x"),
        ):
            with pytest.raises(openai.NotFoundError) as caught:
                await asking
            assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("error", "kind", "type_"),
    [
        (NodeBusyError("full"), openai.RateLimitError, "rate_limit_error"),
        (NoContributorsError("nobody"), openai.InternalServerError, "server_error"),
    ],
)
async def test_errors_of_the_network_keep_status_and_code(
    error: FedAttnError, kind: type[openai.APIStatusError], type_: str
) -> None:
    async with client_of(failing(error)) as (client, _):
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(
                model=MODEL, messages=ASKED, extra_body={"fedattn": {"max_wait_s": 0}}
            )
    assert (caught.value.code, caught.value.type) == (error.code, type_)
    assert int(caught.value.response.headers["retry-after"]) > 0


async def test_errors_in_mid_stream_reach_the_client() -> None:
    async with client_of(failing(SessionAbortedError("node-a vanished"), opened())) as (client, _):
        with pytest.raises(openai.APIError, match="node-a vanished") as caught:
            await chunks_of(client)
        stream = await client.responses.create(model=MODEL, input="x", stream=True)
        events = [event async for event in stream]
    assert caught.value.code == "session_aborted"
    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.message == "node-a vanished"


async def test_who_does_not_sign_in_or_may_not_ask_is_told_in_their_words(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"

    def make(name: str, **fields: Any) -> str:
        return KeyFile(path).create(
            lambda key_id, sha256: ApiKey.model_validate(
                {"id": key_id, "name": name, "sha256": sha256, "created_at": 0.0, **fields}
            )
        )

    anna, bert = make("anna"), make("bert", publishers=["elsewhere"], queries_per_minute=2)
    flags = [f"--keys={path}"]
    async with client_of(key=anna, flags=flags) as (client, gateway):
        await client.chat.completions.create(model=MODEL, messages=ASKED)
        assert gateway.participant.requests[0].options.subject == "anna"
        with pytest.raises(openai.PermissionDeniedError) as denied:
            await client.chat.completions.create(
                model=MODEL, messages=ASKED, extra_body={"fedattn": {"subject": "bert"}}
            )
        with pytest.raises(openai.AuthenticationError) as unknown:
            await client.with_options(api_key="fa_wrong").models.list()
        other = client.with_options(api_key=bert)
        assert (await other.models.list()).data == []
        with pytest.raises(openai.NotFoundError):
            await other.chat.completions.create(model=MODEL, messages=ASKED)
        for asking in (
            other.models.list(),
            other.models.retrieve(MODEL),
            other.chat.completions.create(model=MODEL, messages=ASKED),
        ):
            with pytest.raises(openai.RateLimitError):
                await asking
    assert (denied.value.code, denied.value.type) == ("not_allowed", "permission_error")
    assert (unknown.value.code, unknown.value.type) == ("not_signed_in", "authentication_error")


@pytest.mark.parametrize(
    ("send", "status"),
    [
        (
            lambda c: c.post(
                "/v1/chat/completions", content=b"{", headers={"Content-Type": "application/json"}
            ),
            400,
        ),
        (lambda c: c.post("/v1/responses", content=b"x"), 415),
        (lambda c: c.get("/v1/responses"), 405),
        (lambda c: c.post("/v1/chat/completions", json={"model": "a" * (300 << 10)}), 413),
        (lambda c: c.get("/v1/models", headers={"Host": "evil.example"}), 421),
    ],
)
async def test_errors_of_http_have_the_envelope_on_these_routes(
    send: Callable[[Any], Any], status: int
) -> None:
    async with running() as gateway:
        response = await send(gateway.client)
        elsewhere = await gateway.client.get("/v1/nowhere")
    assert response.status_code == status
    assert response.json()["error"].keys() == {"message", "type", "param", "code"}
    assert "error" not in elsewhere.json()


async def test_a_page_of_a_named_origin_may_use_the_client(tmp_path: Path) -> None:
    asks = {
        "Origin": "https://desk.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang,"
        "x-stainless-retry-count,openai-organization",
    }
    async with running(flags=["--cors-origin=https://desk.example"]) as gateway:
        preflight = await gateway.client.options("/v1/chat/completions", headers=asks)
    assert preflight.status_code == 200
    assert "x-stainless-lang" in preflight.headers["access-control-allow-headers"]
