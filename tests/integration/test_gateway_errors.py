"""Whatever goes wrong is a problem document, and private text stays private."""

import asyncio
import logging
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from fedattn.core.errors import FedAttnError, InternalError, leaf_errors
from fedattn.wire.status import STATUS_TABLE
from fedattn.wire.v1 import participant_pb2
from gateway import asking
from gateway.app import MAX_BODY_BYTES
from tests.harness.gateway import (
    ANSWER,
    QUESTION,
    Gate,
    QueryEvent,
    check_problem,
    failing,
    opened,
    result,
    running,
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("leaf", leaf_errors(), ids=lambda leaf: leaf.code)
async def test_error_of_the_publisher_keeps_its_code(
    leaf: type[FedAttnError], stream: bool
) -> None:
    row = STATUS_TABLE[leaf]
    async with running(failing(leaf("node-a: expected 30, got 24"))) as gateway:
        response = await gateway.ask(stream=stream, max_wait_s=0)
    problem = check_problem(response, row.http_status, leaf.code)
    assert problem["detail"] == "node-a: expected 30, got 24"
    assert ("retry-after" in response.headers) == row.is_retryable


@pytest.mark.parametrize(
    ("fields", "status", "code", "named"),
    [
        ({"question": "  \n"}, 422, "empty_question", "question"),
        ({"plan": "often"}, 422, "invalid_plan", "'often'"),
        ({"publisher_plan": "uniform:0"}, 422, "invalid_plan", "uniform"),
        ({"sampling": {"top_p": 0}}, 422, "invalid_sampling", "top_p"),
        ({"sampling": {"seed": -1}}, 422, "invalid_sampling", "seed"),
        (
            {"publisher": "node-z"},
            404,
            "unknown_participant",
            "nodes that take queries are publisher",
        ),
        ({"publisher": "a b"}, 422, "invalid_request", "'a b'"),
        ({"contributors": ["x/y"]}, 422, "invalid_request", "'x/y'"),
        ({"contributors": ["a", "a"]}, 422, "invalid_request", "named twice"),
        ({"contributors": []}, 422, "invalid_request", "empty list"),
        (
            {"compression": {"codec": "zip"}},
            422,
            "invalid_request",
            "choose one of auto, fp32, fp16, bf16",
        ),
        ({"prefix": "private"}, 422, "invalid_request", "prefix"),
        ({"prefix": "first", "independent": True}, 422, "invalid_request", "independent"),
        ({"min_participants": 0}, 422, "invalid_request", "min_participants"),
        ({"deadline_s": 3601}, 422, "invalid_request", "deadline_s"),
        ({"question": "w" * 32_769}, 422, "invalid_request", "text of 32769 characters"),
        ({"stream": "yes"}, 422, "invalid_request", "stream"),
        ({"sampling": {"top_k": 1.5}}, 422, "invalid_request", "sampling.top_k"),
        ({"max_tokens": 5}, 422, "invalid_request", "max_tokens"),
    ],
)
async def test_invalid_request_is_refused_at_the_edge(
    fields: dict[str, Any], status: int, code: str, named: str
) -> None:
    async with running() as gateway:
        response = await gateway.ask(**fields)
        assert gateway.participant.requests == []
    assert named in check_problem(response, status, code)["detail"]


@pytest.mark.parametrize(
    "content",
    [
        f'{{"question": "{QUESTION}", ',
        f'"{QUESTION}"',
        f'{{"question": ["{QUESTION}"]}}',
        f'{{"question": "{QUESTION}", "qestion": "{QUESTION}"}}',
        f'{{"question": "x", "sampling": {{"stop": "{QUESTION}"}}}}',
        f'{{"question": "x", "deadline_s": "{QUESTION}"}}',
    ],
)
async def test_malformed_body_is_named_but_never_repeated(content: str) -> None:
    async with running() as gateway:
        response = await gateway.client.post(
            "/v1/queries", content=content, headers={"content-type": "application/json"}
        )
    problem = check_problem(response, 422, "invalid_request")
    assert problem["errors"][0].keys() == {"field", "expected", "got"}
    assert QUESTION not in response.text


async def test_framework_errors_are_problems_too() -> None:
    async with running() as gateway:
        missing = await gateway.client.get("/v2/queries")
        wrong_method = await gateway.client.get("/v1/warm")
    check_problem(missing, 404, "not_found")
    check_problem(wrong_method, 405, "method_not_allowed")
    assert wrong_method.headers["allow"] == "POST"


async def test_large_body_is_refused_declared_or_not() -> None:
    async def chunks() -> Any:
        for _ in range(MAX_BODY_BYTES // 1024 + 1):
            yield b" " * 1024

    num_reads = 0

    async def counted() -> Any:
        nonlocal num_reads
        num_reads += 1
        yield b" "

    json = {"content-type": "application/json"}
    declared_size = json | {"content-length": str(MAX_BODY_BYTES + 1)}
    async with running() as gateway:
        declared = await gateway.client.post(
            "/v1/queries", content=counted(), headers=declared_size
        )
        undeclared = await gateway.client.post("/v1/queries", content=chunks(), headers=json)
        largest = await gateway.client.post(
            "/v1/queries",
            content=b'{"question": "x"}'.ljust(MAX_BODY_BYTES),
            headers=json,
        )
    check_problem(declared, 413, "body_too_large")
    assert num_reads == 0
    check_problem(undeclared, 413, "body_too_large")
    assert largest.status_code == 200


@pytest.mark.parametrize("events", [(), (opened(),)], ids=["nothing", "no result"])
async def test_publisher_that_ends_without_result_is_an_error(
    events: tuple[QueryEvent, ...],
) -> None:
    async def script(request: participant_pb2.QueryRequest) -> Any:
        for event in events:
            yield event

    async with running(script) as gateway:
        response = await gateway.ask()
    check_problem(response, 502, "session_aborted")


async def test_unknown_finish_reason_is_a_protocol_mismatch() -> None:
    strange = result()
    strange.finish_reason = participant_pb2.FINISH_REASON_UNSPECIFIED

    async def script(request: participant_pb2.QueryRequest) -> Any:
        yield QueryEvent(result=strange)

    async with running(script) as gateway:
        response = await gateway.ask()
    check_problem(response, 409, "protocol_mismatch")


async def test_publisher_that_stops_is_named() -> None:
    async with running() as gateway:
        await gateway.grpc_server.stop(grace_s=0)
        response = await gateway.ask()
    problem = check_problem(response, 503, "publisher_unavailable")
    assert (
        f"publisher cannot be reached through the aggregator at {gateway.address}"
        in (problem["detail"])
    )


async def test_query_beyond_the_limit_is_refused_until_one_ends() -> None:
    gate = Gate()
    async with running(gate, max_concurrent_queries=1) as gateway:
        first = asyncio.create_task(gateway.ask())
        await gateway.participant.started.wait()
        refused = await gateway.ask(max_wait_s=0)
        gate.open.set()
        assert (await first).status_code == 200
        assert (await gateway.ask(stream=True)).status_code == 200
        assert (await gateway.ask()).status_code == 200
    check_problem(refused, 429, "node_busy")
    assert "retry-after" in refused.headers


async def test_fetching_ahead_takes_a_place_and_counts_its_refusal() -> None:
    gate, registry = Gate(), CollectorRegistry()
    async with running(gate, max_concurrent_queries=1, registry=registry) as gateway:
        first = asyncio.create_task(gateway.client.post("/v1/warm", json={}))
        await gateway.participant.started.wait()
        refused = [
            await gateway.ask(max_wait_s=0),
            await gateway.client.post("/v1/warm", json={"max_wait_s": 0}),
        ]
        assert registry.get_sample_value("fedattn_gateway_queries_running") == 1
        gate.open.set()
        assert (await first).status_code == 200
        assert (await gateway.ask()).status_code == 200
    for response in refused:
        check_problem(response, 429, "node_busy")
    assert registry.get_sample_value("fedattn_gateway_queries_total", {"outcome": "node_busy"}) == 2


async def test_failed_query_gives_its_place_free() -> None:
    async with running(
        failing(InternalError("internal error")), max_concurrent_queries=1
    ) as gateway:
        codes = [(await gateway.ask(stream=stream)).status_code for stream in (False, True, False)]
    assert codes == [500, 500, 500]


def _break(message: str) -> Any:
    def broken(_result: object) -> None:
        raise RuntimeError(message)

    return broken


async def test_unforeseen_error_has_fixed_public_text_and_is_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.report.answer_from_wire", _break("secret"))
    with capture_logs() as entries:
        async with running() as gateway:
            response = await gateway.ask()
    problem = check_problem(response, 500, "internal")
    assert "secret" not in response.text
    (entry,) = [entry for entry in entries if entry["event"] == "unforeseen_error"]
    assert (entry["instance"], entry["error_type"]) == (problem["instance"], "RuntimeError")
    assert "broken" in entry["stack"]


async def test_no_log_entry_holds_question_or_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with capture_logs() as entries:
        async with running() as gateway:
            await gateway.ask()
            await gateway.ask(stream=True)
            await gateway.ask(stream=QUESTION)
            await gateway.ask(plan=QUESTION)
            gateway.participant.script = failing(InternalError("internal error"))
            await gateway.ask()
            gateway.participant.script = failing(InternalError("internal error"), opened())
            await gateway.ask(stream=True)
            monkeypatch.setattr(asking, "query_to_wire", _break(QUESTION))
            check_problem(await gateway.ask(), 500, "internal")
    logged = f"{entries}{caplog.text}"
    assert "unforeseen_error" in logged
    for private in (QUESTION, ANSWER, "Ward 7"):
        assert private not in logged
