"""A job outlives the connection of whoever waits for it."""

from datetime import UTC, datetime

import pytest

from fedattn.core.errors import NodeBusyError, SessionAbortedError
from fedattn.rest.events import QueuedEvent, TokenEvent
from fedattn.rest.jobs import Job, JobPage, JobStatus, JobSummary
from tests.harness.answers import sample_answer
from tests.unit.client.gateways import JSON, Blocking, Said, answering, events, problem

JOB = JobSummary(
    id="b3c1f0f2",
    status=JobStatus.QUEUED,
    background=True,
    question="Who?",
    created=datetime(2026, 3, 1, tzinfo=UTC),
    started=None,
    ended=None,
    expires=None,
)
MADE = Said(content=JOB.model_dump_json(), media_type=JSON, status=202)
REPORT = ("report", sample_answer().model_dump_json())
HELLO, WORLD = ('{"text": "Hello"}', '{"text": "world"}')


def test_a_job_is_made_once_whatever_is_sent_again(client: Blocking) -> None:
    busy = problem(503, "jobs_unavailable", "no", Retry_After="0")
    with answering(busy, MADE) as gateway:
        job = client.call(gateway.url, "submit", "Who?", retries=1)
    assert job.id == "b3c1f0f2"
    assert gateway.lines == ["POST /v1/queries"] * 2
    first, second = ({k.lower(): v for k, v in head.items()} for head in gateway.heads)
    assert first["idempotency-key"] == second["idempotency-key"] != ""
    assert gateway.bodies[0]["background"] is True
    assert gateway.bodies[0]["stream"] is False


def test_a_key_of_ones_own_is_sent(client: Blocking) -> None:
    with answering(MADE) as gateway:
        client.call(gateway.url, "submit", "Who?", idempotency_key="monday")
    (head,) = gateway.heads
    assert {name.lower(): value for name, value in head.items()}["idempotency-key"] == "monday"


def test_a_stream_that_breaks_is_taken_up_where_it_ended(client: Blocking) -> None:
    before = Said(content=events(("token", HELLO), ("token", WORLD), first_id=1))
    after = Said(content=events(REPORT, first_id=3))
    with answering(MADE, before, after) as gateway:
        *tokens, answer = client.call(gateway.url, "submit.events", "Who?", retries=1)
    assert tokens == [TokenEvent(text="Hello"), TokenEvent(text="world")]
    assert answer == sample_answer()
    path = "GET /v1/queries/b3c1f0f2/events"
    assert gateway.lines[1:] == [path, path]
    heads = [{name.lower(): value for name, value in head.items()} for head in gateway.heads]
    assert [head.get("last-event-id") for head in heads] == [None, None, "2"]


def test_an_event_without_an_id_leaves_the_last_one_known(client: Blocking) -> None:
    before = Said(content=events(("token", HELLO), first_id=1))
    waits = Said(
        content=events(("queued", QueuedEvent(place=1, of=1, estimate_s=None).model_dump_json()))
    )
    after = Said(content=events(REPORT, first_id=2))
    with answering(MADE, before, waits, after) as gateway:
        list(client.call(gateway.url, "submit.events", "Who?", retries=1))
    heads = [{name.lower(): value for name, value in head.items()} for head in gateway.heads]
    assert [head.get("last-event-id") for head in heads] == [None, None, "1", "1"]


def test_a_stream_without_news_is_not_taken_up_for_ever(client: Blocking) -> None:
    with answering(MADE, Said(content="")) as gateway, pytest.raises(SessionAbortedError):
        client.call(gateway.url, "submit.wait", "Who?", retries=2)
    assert len(gateway.lines) == 1 + 3


def test_waiting_ends_with_the_answer_or_with_the_problem(client: Blocking) -> None:
    with answering(MADE, Said(content=events(REPORT, first_id=1))) as gateway:
        assert client.call(gateway.url, "submit.wait", "Who?") == sample_answer()
    failed = events(("error", problem(429, "node_busy", "no place").content), first_id=1)
    with answering(MADE, Said(content=failed)) as gateway, pytest.raises(NodeBusyError):
        client.call(gateway.url, "submit.wait", "Who?")


def test_a_job_is_found_again_and_cancelled(client: Blocking) -> None:
    record = Job(**dict(JOB), answer=sample_answer(), problem=None)
    found = Said(content=record.model_dump_json(), media_type=JSON)
    with answering(found) as gateway:
        assert client.call(gateway.url, "job.refresh", "b3c1f0f2").answer == sample_answer()
    with answering(found, Said(content="", status=204)) as gateway:
        client.call(gateway.url, "job.cancel", "a/b?c")
    assert gateway.lines == ["GET /v1/queries/a%2Fb%3Fc", "DELETE /v1/queries/b3c1f0f2"]


def test_jobs_come_page_by_page(client: Blocking) -> None:
    pages = [JobPage(jobs=[JOB], next="b3c1f0f2"), JobPage(jobs=[JOB], next=None)]
    said = [Said(content=page.model_dump_json(), media_type=JSON) for page in pages]
    with answering(*said) as gateway:
        assert client.call(gateway.url, "jobs") == [JOB, JOB]
    assert gateway.lines == ["GET /v1/queries", "GET /v1/queries?before=b3c1f0f2"]
