"""What a further API brings along: how its events and its errors are written."""

from collections.abc import Iterator, Mapping
from typing import Annotated

from fastapi import APIRouter, Body
from fastapi.responses import JSONResponse
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from fedattn.core.errors import NodeBusyError
from fedattn.core.share import Share
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.events import QueryEvent, TokenEvent
from fedattn.rest.problems import Problem
from fedattn.rest.query import QueryBody
from fedattn.wire.aggregators import Aggregators
from gateway.asking import Asking
from gateway.callers import ANYONE
from gateway.error_handlers import install_error_handlers
from gateway.events import QueryEventStream
from gateway.publishers import Publishers
from gateway.rendering import Rendering
from tests.harness.gateway import ANSWER, failing, make_settings, opened, running


def write(event: QueryEvent | Problem) -> Iterator[ServerSentEvent]:
    match event:
        case TokenEvent():
            yield ServerSentEvent(event.text)
        case QueryAnswer():
            yield ServerSentEvent("[DONE]")
        case Problem():
            yield ServerSentEvent(f"error {event.code}")
        case _:
            yield ServerSentEvent(comment="not ours")


def short(problem: Problem, headers: Mapping[str, str]) -> Response:
    return JSONResponse({"short": problem.code}, problem.status, dict(headers))


async def test_events_and_errors_are_written_as_the_api_wants() -> None:
    async with running() as gateway:
        router = APIRouter(prefix="/other")
        settings = make_settings(str(gateway.address))

        aggregators = Aggregators(settings.endpoints, None)
        async with Publishers(aggregators, settings.query_limits) as publishers:

            @router.post("/ask")
            async def ask(body: Annotated[QueryBody, Body()]) -> EventSourceResponse:
                begin = Asking(publishers, Share.NOTHING).starting(ANYONE, body)
                return QueryEventStream(await begin(), encode=write)

            gateway.app.include_router(router)
            install_error_handlers(gateway.app, 1 << 10, Rendering({"/other": short}))
            body = {"question": "x"}
            written = (await gateway.client.post("/other/ask", json=body)).text
            gateway.participant.script = failing(NodeBusyError("full"), opened())
            broken = (await gateway.client.post("/other/ask", json=body)).text
            refused = await gateway.client.post("/other/ask", json={"question": ""})
            elsewhere = await gateway.client.post("/v1/queries", json={"question": ""})
    data = [line[6:] for line in written.splitlines() if line.startswith("data: ")]
    assert ("".join(data[:-1]), data[-1]) == (ANSWER, "[DONE]")
    assert "data: error node_busy" in broken
    assert (refused.status_code, refused.json()) == (422, {"short": "empty_question"})
    assert elsewhere.json()["code"] == "empty_question"
