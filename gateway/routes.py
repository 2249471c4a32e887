"""The REST API."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request, Response

from fedattn.rest.answers import Health, QueryAnswer, WarmAnswer
from fedattn.rest.participants import ParticipantInfo
from fedattn.rest.query import QueryBody
from fedattn.rest.session import SessionBody
from gateway.asking import Asking
from gateway.callers import Caller, caller_of
from gateway.disconnect import unless_disconnected
from gateway.events import encode_event
from gateway.jobs import Jobs
from gateway.jobs_routes import IdempotencyKey, answer_kept, new_job
from gateway.json_route import JsonRoute
from gateway.openapi import QUERY_EXAMPLES, document_job, document_problems, document_stream
from gateway.publishers import Publishers
from gateway.query import session_to_wire
from gateway.report import departed_from_wire, participant_from_wire, warm_from_wire
from gateway.waiting import Patience

CallerOf = Annotated[Caller, Depends(caller_of)]


def query_router(asking: Asking, jobs: Jobs) -> APIRouter:
    """Routes that ask and look at the network.

    Args:
        asking: how they ask.
        jobs: keeps those asked in the background or with an idempotency key.
    """
    publishers = asking.publishers
    router = APIRouter(prefix="/v1", route_class=JsonRoute)

    @router.post(
        "/queries",
        tags=["queries"],
        response_model=QueryAnswer,
        responses={
            200: document_stream(),
            202: document_job(),
            **document_problems(
                400, 401, 403, 404, 409, 413, 415, 421, 422, 429, 500, 502, 503, 504
            ),
        },
    )
    async def post_query(
        request: Request,
        caller: CallerOf,
        body: Annotated[QueryBody, Body(openapi_examples=QUERY_EXAMPLES)],
        idempotency_key: IdempotencyKey = None,
    ) -> QueryAnswer | Response:
        """Ask all participants one question.

        Answers with one document, with server-sent events if `stream` is true, or at once with a
        job if `background` is true. A failure before the first event is a problem document with
        its status, streamed or not.
        """
        if body.background or idempotency_key is not None:
            kept = new_job(caller, body, idempotency_key, asking.starting(caller, body))
            return await answer_kept(request, jobs, kept, is_streamed=body.stream)
        return await asking.ask(request, caller, body, encode_event)

    @router.post(
        "/warm",
        tags=["queries"],
        responses=document_problems(
            400, 401, 403, 404, 409, 413, 415, 421, 422, 429, 500, 502, 503, 504
        ),
    )
    async def post_warm(request: Request, caller: CallerOf, body: SessionBody) -> WarmAnswer:
        """Fetch everybody's rows ahead of any question.

        A query over unchanged contexts, with the same plan and codec, then moves none.
        """
        warming = publishers.warm(
            caller, body.publisher, session_to_wire(body, caller), Patience.of(body)
        )
        return warm_from_wire(await unless_disconnected(request, warming))

    @router.get(
        "/participants",
        tags=["network"],
        responses=document_problems(401, 403, 409, 421, 429, 500, 503, 504),
    )
    async def get_participants(caller: CallerOf) -> list[ParticipantInfo]:
        """All nodes that are joined now, then those that left within the last hour.

        The latter have the state `departed`, and a reason.
        """
        answer = await publishers.list_nodes(caller)
        return [
            *(participant_from_wire(node, can_publish=node.publishes) for node in answer.nodes),
            *map(departed_from_wire, answer.departed),
        ]

    return router


def probe_router(publishers: Publishers) -> APIRouter:
    """Routes for whatever supervises the gateway."""
    router = APIRouter(tags=["probes"])

    @router.get("/healthz", responses=document_problems(421))
    async def get_health() -> Health:
        """Whether the process is alive."""
        return Health(status="ok")

    @router.get("/readyz", responses=document_problems(403, 409, 421, 503, 504))
    async def get_readiness() -> Health:
        """Whether at least one joined node takes queries."""
        await publishers.check_ready()
        return Health(status="ok")

    return router
