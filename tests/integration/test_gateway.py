"""The gateway's answers."""

import pytest

from fedattn.core.errors import AggregatorUnavailableError, ConfigurationError
from fedattn.core.profile import CompressionWish
from fedattn.core.request import SessionOptions
from fedattn.core.share import Share
from fedattn.rest.answers import QueryAnswer, WarmAnswer
from fedattn.rest.participants import ParticipantInfo
from fedattn.wire.convert import wish_from_wire
from fedattn.wire.session_options import options_from_wire
from fedattn.wire.v1 import participant_pb2, session_pb2
from gateway.report import answer_from_wire
from tests.harness.channels import endpoint
from tests.harness.gateway import (
    ANSWER,
    QUESTION,
    SESSION_ID,
    check_problem,
    make_settings,
    result,
    running,
)


async def test_answer_holds_text_participants_and_totals() -> None:
    async with running() as gateway:
        response = await gateway.ask()
    assert response.status_code == 200
    answer = QueryAnswer.model_validate_json(response.content, strict=True)
    assert (answer.session_id, answer.answer, answer.finish_reason) == (SESSION_ID, ANSWER, "end")
    assert (answer.prompt_tokens, answer.num_tokens) == (9, 5)
    node_a, publisher, node_c = answer.participants
    assert (node_a.state, node_a.missing_from_layer, node_a.bytes_up) == ("lost", 8, 120)
    assert [layer.model_dump() for layer in node_a.layers] == [
        {"layer": 7, "up": 100, "down": 0},
        {"layer": 8, "up": 20, "down": 0},
    ]
    assert (publisher.role, publisher.missing_from_layer) == ("publisher", None)
    assert (publisher.wait_s, publisher.compute_s, publisher.bytes_down) == (0.25, 0.5, 100)
    assert (node_c.state, node_c.detail) == ("excluded", "model differs")
    assert answer.totals.model_dump() == {
        "time_to_first_token_s": 0.75,
        "tokens_per_s": 2.0,
        "kv_bytes": 120,
        "planned_kv_bytes": 0,
        "kv_bytes_down": 100,
        "asked_bytes": 0,
        "budget_steps": 0,
    }


def test_one_token_has_no_speed() -> None:
    assert answer_from_wire(result(num_tokens=1)).totals.tokens_per_s is None
    assert answer_from_wire(result(decode_s=0.0)).totals.tokens_per_s is None


async def test_publisher_gets_every_field_and_the_deadline() -> None:
    async with running() as gateway:
        await gateway.ask(
            contributors=["node-b", "node-a"],
            plan="7,9-11",
            publisher_plan="all",
            sampling={
                "max_new_tokens": 3,
                "temperature": 1,
                "top_p": 0.5,
                "top_k": 4,
                "seed": 9,
                "stop": ["."],
            },
            compression={
                "codec": "fp16",
                "keep_ratio": 0.5,
                "selector": "recency",
                "keep_ends": 2,
                "input_keep_ratio": 0.75,
                "seed": 11,
            },
            kv_budget_bytes=5000,
            link_rate_mbit_s=8,
            link_time_s=0.5,
            link_rtt_ms=2,
            exchange="rows",
            asked_plan="5",
            query_codec="int8",
            prefix="first",
            min_participants=3,
            deadline_s=30,
        )
    assert gateway.participant.requests == [
        participant_pb2.QueryRequest(
            question=QUESTION,
            plan="7,9-11",
            publisher_plan="all",
            sampling=participant_pb2.Sampling(
                max_new_tokens=3,
                temperature=1,
                top_p=0.5,
                top_k=4,
                seed=9,
                stop=["."],
                repetition_penalty=1,
            ),
            compression=session_pb2.CompressionWish(
                codec_id=2,
                keep_ratio=0.5,
                selector="recency",
                keep_ends=2,
                input_keep_ratio=0.75,
                seed=11,
            ),
            options=session_pb2.SessionOptions(
                contributors=["node-b", "node-a"],
                budget=session_pb2.ByteBudget(kv_bytes=5000, link_bytes=500_000),
                prefix=session_pb2.PREFIX_MODE_FIRST,
                min_participants=3,
                deadline_s=30,
                share=session_pb2.SHARE_QUESTION,
                exchange=session_pb2.EXCHANGE_ROWS,
            ),
            asked_plan="5",
            query_codec="int8",
            link=participant_pb2.Link(bytes_per_s=1e6, round_trip_s=2e-3),
        )
    ]
    assert 30 < gateway.participant.timeouts_s[0] < 36  # gRPC rounds up


async def test_defaults_reach_the_publisher() -> None:
    async with running() as gateway:
        await gateway.ask()
    (request,) = gateway.participant.requests
    assert (request.plan, request.publisher_plan) == ("auto", "")
    assert wish_from_wire(request.compression) == CompressionWish()
    assert options_from_wire(request.options) == SessionOptions(share=Share.QUESTION)
    assert (request.sampling.max_new_tokens, request.sampling.top_p) == (64, 1.0)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answered_query_is_complete_at_the_publisher_too(stream: bool) -> None:
    async with running() as gateway:
        for _ in range(20):
            await gateway.ask(stream=stream)
        assert gateway.participant.num_completed == 20
        assert not gateway.participant.cancelled.is_set()


async def test_query_goes_to_the_named_publisher() -> None:
    async with running(publishers=["publisher", "node-b"]) as gateway:
        gateway.aggregator.gone.add("node-b")
        named = await gateway.ask(publisher="publisher")
        lost = await gateway.ask(publisher="node-b")
        unknown = await gateway.ask(publisher="node-z")
        unwilling = await gateway.ask(publisher="node-a")
    assert named.status_code == 200
    problem = check_problem(lost, 503, "publisher_unavailable")
    assert problem["detail"] == "node node-b has left"  # as the aggregator says
    problem = check_problem(unknown, 404, "unknown_participant")
    assert (
        "'node-z' is not joined; nodes that take queries are node-b, publisher"
        in (problem["detail"])
    )
    problem = check_problem(unwilling, 403, "policy_refused")
    assert "node node-a takes no queries" in problem["detail"]


@pytest.mark.parametrize(("flags", "asked"), [([], "b"), (["--publisher=c"], "c")])
async def test_query_that_names_nobody_goes_to_the_default_or_the_first_by_id(
    flags: list[str], asked: str
) -> None:
    async with running(publishers=["d", "c", "b"], flags=flags) as gateway:
        gateway.aggregator.gone |= {"b", "c", "d"}
        response = await gateway.ask(retry=False)
    assert (
        check_problem(response, 503, "publisher_unavailable")["detail"] == f"node {asked} has left"
    )


async def test_default_publisher_that_is_not_joined_is_named() -> None:
    async with running(flags=["--publisher=desk"]) as gateway:
        response = await gateway.ask()
        assert (await gateway.ask(publisher="publisher")).status_code == 200
    problem = check_problem(response, 503, "publisher_unavailable")
    assert "publisher desk of FEDATTN_GATEWAY_PUBLISHER is not joined" in problem["detail"]


async def test_node_that_has_just_joined_can_be_asked() -> None:
    async with running() as gateway:
        assert (await gateway.ask()).status_code == 200
        gateway.aggregator.publishers.append("late")
        assert (await gateway.ask(publisher="late")).status_code == 200


async def test_participants_says_who_is_joined_and_who_can_publish() -> None:
    async with running() as gateway:
        response = await gateway.client.get("/v1/participants")
    node_a, publisher = [ParticipantInfo.model_validate(node) for node in response.json()]
    assert (node_a.node_id, node_a.can_publish) == ("node-a", False)
    assert (publisher.node_id, publisher.can_publish) == ("publisher", True)
    assert (node_a.num_layers, node_a.max_positions, node_a.joined_for_s) == (30, 8192, 12.5)


async def test_who_is_joined_cannot_be_told_without_the_aggregator() -> None:
    async with running() as gateway:
        gateway.aggregator.list_error = AggregatorUnavailableError("no aggregator at agg:1")
        for path in ("/v1/participants", "/readyz"):
            problem = check_problem(await gateway.client.get(path), 503, "aggregator_unavailable")
            assert problem["detail"] == "no aggregator at agg:1"


async def test_ready_only_while_a_node_takes_queries() -> None:
    async with running() as gateway:
        assert (await gateway.client.get("/healthz")).json() == {"status": "ok"}
        assert (await gateway.client.get("/readyz")).json() == {"status": "ok"}
        gateway.aggregator.publishers.clear()
        await gateway.client.get("/v1/participants")  # looks anew
        response = await gateway.client.get("/readyz")
        asked = await gateway.ask()
        assert (await gateway.client.get("/healthz")).status_code == 200
    for refused in (response, asked):
        problem = check_problem(refused, 503, "publisher_unavailable")
        assert "no joined node takes queries" in problem["detail"]


def test_settings_name_the_aggregator_and_a_node() -> None:
    settings = make_settings("[::1]:7", flags=["--publisher=desk"])
    assert (settings.endpoint, settings.publisher) == (endpoint("[::1]:7"), "desk")
    assert make_settings().publisher is None
    with pytest.raises(ConfigurationError, match="FEDATTN_GATEWAY_PUBLISHER"):
        make_settings(flags=["--publisher=a b"])


async def test_warm_says_whose_rows_are_held_and_passes_no_question() -> None:
    async with running() as gateway:
        response = await gateway.client.post(
            "/v1/warm", json={"plan": "1,3", "compression": {"codec": "int8"}}
        )
        refused = await gateway.client.post("/v1/warm", json={"question": QUESTION})
    assert response.status_code == 200
    answer = WarmAnswer.model_validate_json(response.content, strict=True)
    assert (answer.session_id, answer.kv_bytes) == (SESSION_ID, 120)
    assert [member.node_id for member in answer.participants] == ["node-a", "publisher", "node-c"]
    request = gateway.participant.requests[0]
    assert (request.question, request.plan, request.options.no_reuse) == ("", "1,3", False)
    assert refused.status_code == 422


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("reuse", False, "no_reuse"),
        ("timeline", True, "timeline"),
        ("independent", True, "independent"),
    ],
)
async def test_switches_reach_the_publisher(field: str, value: bool, name: str) -> None:
    async with running() as gateway:
        await gateway.ask()
        await gateway.ask(**{field: value})
    plain, switched = gateway.participant.requests
    assert not getattr(plain.options, name)
    assert getattr(switched.options, name)
