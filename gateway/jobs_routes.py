"""Routes of kept queries."""

import hashlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from sse_starlette import EventSourceResponse, ServerSentEvent

from fedattn.core.errors import NotAllowedError
from fedattn.rest.jobs import MAX_PAGE, Job, JobPage, JobSummary
from fedattn.rest.problems import Problem
from fedattn.rest.query import QueryBody
from gateway.callers import Caller, caller_of
from gateway.disconnect import unless_disconnected
from gateway.events import written_event
from gateway.jobs import Jobs
from gateway.jobs_asked import NewJob
from gateway.jobs_rows import JobEvent, JobRow
from gateway.jobs_running import Ask
from gateway.json_route import JsonRoute
from gateway.openapi import document_events, document_problems
from gateway.problems import problem_of, problem_response

PATH = "/v1/queries"
KEY_HEADER = "Idempotency-Key"
_MAX_NUMBER = 2**63 - 1

CallerOf = Annotated[Caller, Depends(caller_of)]
JobId = Annotated[
    str,
    Path(
        max_length=64, description="Id of the job.", examples=["b3c1f0f27a5e4f6f9d0f6f4a1f2e3d4c"]
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=KEY_HEADER,
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="A name of your own for this question. Asked again with it, the same body gets "
        "the same answer, or the same job, and is not asked twice.",
    ),
]


async def answer_kept(
    request: Request, jobs: Jobs, new: NewJob, *, is_streamed: bool = False
) -> Response:
    """Answer a query that is kept: with the job, its events, or its answer.

    Raises:
        FedAttnError: as `Jobs.submit` and `Jobs.wait`.
    """
    row = await jobs.submit(new)
    address = f"{PATH}/{row.id}"
    if new.is_background:
        document = _summary(row, jobs).model_dump(mode="json")
        return JSONResponse(document, status_code=202, headers={"Location": address})
    headers = {"Content-Location": address}
    waiting = jobs.wait_begun(row) if is_streamed else jobs.wait(row)
    event = await unless_disconnected(request, waiting)
    if event.name == "error":
        return problem_response(Problem.model_validate_json(event.data), headers)
    if is_streamed:
        return EventSourceResponse(_encode_all(jobs.follow(row)), headers=headers)
    return Response(event.data, media_type="application/json", headers=headers)


def new_job(caller: Caller, body: QueryBody, key: str | None, ask: Ask) -> NewJob:
    """What is to be kept of a request."""
    return NewJob(
        caller=caller,
        question=body.question,
        ask=ask,
        is_background=body.background,
        key=key,
        body_sha256=hashlib.sha256(body.model_dump_json().encode()).digest(),
    )


def job_router(jobs: Jobs) -> APIRouter:
    """Routes that read and remove kept queries."""
    router = APIRouter(prefix=PATH, route_class=JsonRoute, tags=["jobs"])

    @router.get("", responses=document_problems(401, 403, 404, 421, 422, 500, 503))
    async def get_queries(
        caller: CallerOf,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Most jobs of a page.")] = 20,
        before: Annotated[
            str | None, Query(max_length=64, description="Id of a job: only older ones.")
        ] = None,
    ) -> JobPage:
        """Your kept queries, the newest first.

        Only where callers sign in: elsewhere all are one caller, and would see each other's.
        """
        if not caller.account:
            raise NotAllowedError(
                "this gateway cannot tell its callers apart, so it lists no jobs; keep the ids of "
                "yours, or let callers sign in"
            )
        rows = await jobs.page(caller, before, limit + 1)
        shown = rows[:limit]
        return JobPage(
            jobs=[_summary(row, jobs) for row in shown],
            next=shown[-1].id if len(rows) > limit else None,
        )

    @router.get(
        "/{job_id}", response_model=Job, responses=document_problems(401, 404, 421, 422, 500, 503)
    )
    async def get_query(caller: CallerOf, job_id: JobId) -> Response:
        """A kept query: how far it has come, and its answer or problem."""
        row = await jobs.find(caller, job_id)
        event = await jobs.outcome(row)
        document = _summary(row, jobs).model_dump(mode="json") | {"answer": None, "problem": None}
        if event is not None:
            document["answer" if event.name == "report" else "problem"] = json.loads(event.data)
        return JSONResponse(document)

    @router.get(
        "/{job_id}/events",
        response_class=EventSourceResponse,
        responses={
            200: document_events(),
            204: {"description": "The job has ended, and its last event was before."},
            **document_problems(401, 404, 421, 422, 500, 503),
        },
    )
    async def get_events(
        caller: CallerOf,
        job_id: JobId,
        last_event_id: Annotated[
            int | None,
            Header(
                ge=0,
                le=_MAX_NUMBER,
                description="Id of the last event that came; only later ones are sent.",
            ),
        ] = None,
    ) -> Response:
        """What happened in a kept query, and what happens, as server-sent events with ids."""
        row = await jobs.find(caller, job_id)
        last = await jobs.outcome(row)
        after = last_event_id or 0
        if row.status.has_ended and (last is None or last.number <= after):
            return Response(status_code=204)  # an EventSource then stops asking
        return EventSourceResponse(_encode_all(jobs.follow(row, after)))

    @router.delete(
        "/{job_id}", status_code=204, responses=document_problems(401, 404, 421, 422, 500, 503)
    )
    async def delete_query(caller: CallerOf, job_id: JobId) -> None:
        """Remove a kept query with its question, answer and events, from the disk too.

        One that runs is cancelled. It is then listed as cancelled, with no texts, until it
        expires or is removed again.
        """
        await jobs.remove(caller, job_id)

    return router


async def _encode_all(events: AsyncIterator[JobEvent]) -> AsyncIterator[ServerSentEvent]:
    try:
        async for event in events:
            yield ServerSentEvent(
                event.data, event=event.name, id=str(event.number) if event.number else None
            )
    except Exception as error:  # border: the answer has begun, so no status tells
        yield written_event(problem_of(error))


def _summary(row: JobRow, jobs: Jobs) -> JobSummary:
    expires = None if row.ended is None else row.ended + jobs.limits.retention_s
    return JobSummary(
        id=row.id,
        status=row.status,
        queued=jobs.queued(row),
        background=row.is_background,
        question=row.question,
        created=datetime.fromtimestamp(row.created, UTC),
        started=_time(row.started),
        ended=_time(row.ended),
        expires=_time(expires),
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
