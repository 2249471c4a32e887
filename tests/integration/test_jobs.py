"""Queries asked in the background or with an idempotency key."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse

from fedattn.core.errors import NoContributorsError, NodeBusyError
from fedattn.runtime.api_keys import ApiKey, KeyFile
from fedattn.wire.v1 import participant_pb2
from gateway import jobs_running, line
from gateway.jobs_sqlite import SqliteJobStore
from tests.harness.gateway import (
    ANSWER,
    QUESTION,
    Gate,
    Harness,
    QueryEvent,
    check_problem,
    failing,
    good_script,
    opened,
    result,
    running,
    served,
)

KEY = {"Idempotency-Key": "order-17"}
NO_GRACE = "--grace-s=0"


@pytest.fixture
def state(tmp_path: Path) -> str:
    return f"--state={tmp_path / 'state'}"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[str, dict[str, str], dict[str, str]]:
    """A flag of the gateway, and the headers of two callers."""
    path = tmp_path / "keys.json"

    def make(name: str) -> dict[str, str]:
        key = KeyFile(path).create(
            lambda key_id, sha256: ApiKey(id=key_id, name=name, sha256=sha256, created_at=0.0)
        )
        return {"Authorization": f"Bearer {key}"}

    return f"--keys={path}", make("anna"), make("ben")


async def ask(gateway: Harness, headers: dict[str, str] | None = None, **body: Any) -> Any:
    body = {"question": QUESTION, **body}
    return await gateway.client.post("/v1/queries", json=body, headers=headers)


async def begin(gateway: Harness, headers: dict[str, str] | None = None, **body: Any) -> str:
    """Ask in the background; the address of the job."""
    response = await ask(gateway, headers, background=True, **body)
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/queries/{job['id']}"
    assert (job["status"], job["question"]) == ("queued", body.get("question", QUESTION))
    return str(response.headers["location"])


async def ended(gateway: Harness, job: str, headers: dict[str, str] | None = None) -> Any:
    """The job, once it has ended."""
    await gateway.client.get(f"{job}/events", headers=headers)
    return (await gateway.client.get(job, headers=headers)).json()


def events_of(text: str) -> list[tuple[str, str]]:
    """(id, name) of server-sent events."""
    fields = [line.partition(": ") for line in text.splitlines()]
    ids = [value for name, _, value in fields if name == "id"]
    return list(zip(ids, (v for n, _, v in fields if n == "event"), strict=True))


async def test_a_background_query_runs_on_and_keeps_its_answer() -> None:
    async with running() as gateway:
        job = await ended(gateway, await begin(gateway))
        assert (job["status"], job["problem"]) == ("done", None)
        assert job["answer"] == (await gateway.ask()).json()
        assert job["created"] <= job["started"] <= job["ended"] < job["expires"]


async def test_events_have_ids_and_resume_after_one() -> None:
    async with running() as gateway:
        job = await begin(gateway)
        first = events_of((await gateway.client.get(f"{job}/events")).text)
        assert first == [
            ("1", "session"), ("2", "layer"), ("3", "token"), ("4", "token"), ("5", "report")
        ]  # fmt: skip
        again = await gateway.client.get(f"{job}/events", headers={"Last-Event-ID": "3"})
        assert events_of(again.text) == first[3:]
        over = await gateway.client.get(f"{job}/events", headers={"Last-Event-ID": "5"})
        assert (over.status_code, over.text) == (204, "")  # an EventSource stops asking
        bad = await gateway.client.get(f"{job}/events", headers={"Last-Event-ID": "x"})
        check_problem(bad, 422, "invalid_request")


async def test_events_are_live_while_the_job_runs() -> None:
    gate = Gate()
    async with running(gate) as gateway, served(gateway) as (url, _):
        async with httpx.AsyncClient(base_url=url) as client:
            address = f"{await begin(gateway)}/events"
            async with aconnect_sse(client, "GET", address) as source:
                events = source.aiter_sse()
                assert (await anext(events)).event == "session"
                gate.open.set()
                last = await anext(events)
                assert (last.event, last.id) == ("report", "2")


async def test_a_failed_job_tells_its_problem() -> None:
    async with running(failing(NoContributorsError("nobody joined"))) as gateway:
        job = await ended(gateway, await begin(gateway))
        assert (job["status"], job["answer"]) == ("failed", None)
        assert (job["problem"]["code"], job["problem"]["status"]) == ("no_contributors", 503)


async def test_removing_a_running_job_cancels_it_and_leaves_no_text(
    state: str, tmp_path: Path
) -> None:
    async with running(Gate(), flags=[state]) as gateway:
        job = await begin(gateway)
        await gateway.participant.started.wait()
        assert (await gateway.client.delete(job)).status_code == 204
        await gateway.participant.cancelled.wait()
        kept = (await gateway.client.get(job)).json()
        assert (kept["status"], kept["question"], kept["answer"]) == ("cancelled", None, None)
        assert kept["problem"]["code"] == "job_cancelled"
        assert QUESTION.encode() not in on_disk(tmp_path / "state")
        assert (await gateway.client.delete(job)).status_code == 204
        check_problem(await gateway.client.get(job), 404, "unknown_job")
        check_problem(await gateway.client.delete(job), 404, "unknown_job")


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def test_who_looks_while_a_job_is_cancelled_is_not_told_that_it_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looking: list[asyncio.Task[httpx.Response]] = []
    cancel = SqliteJobStore.cancel

    async def looked_at_meanwhile(store: SqliteJobStore, *args: Any) -> None:
        looking.append(asyncio.create_task(gateway.client.get(job)))
        for _ in range(20):  # turns at the file, of which the look takes the next ones
            await store.count("")
        await cancel(store, *args)

    monkeypatch.setattr(SqliteJobStore, "cancel", looked_at_meanwhile)
    async with running(Gate(), flags=[NO_GRACE]) as gateway:
        job = await begin(gateway)
        await gateway.participant.started.wait()
        deletes = [gateway.client.delete(job) for _ in range(2)]
        assert [done.status_code for done in await asyncio.gather(*deletes)] == [204, 204]
        assert (await looking[0]).json()["status"] in {"cancelled", 404}


async def test_removing_a_finished_job_leaves_nothing_on_the_disk(
    state: str, tmp_path: Path
) -> None:
    async with running(flags=[state]) as gateway:
        job = await begin(gateway)
        await ended(gateway, job)
        assert ANSWER.encode() in on_disk(tmp_path / "state")
        assert (await gateway.client.delete(job)).status_code == 204
        left = on_disk(tmp_path / "state")
        assert QUESTION.encode() not in left
        assert ANSWER.encode() not in left
        check_problem(await gateway.client.get(f"{job}/events"), 404, "unknown_job")


async def test_ordinary_queries_and_keys_of_callers_are_not_kept(
    state: str, keys: Any, tmp_path: Path
) -> None:
    flag, anna, _ = keys
    async with running(flags=[state, flag]) as gateway:
        assert (await ask(gateway, anna)).status_code == 200
        assert QUESTION.encode() not in on_disk(tmp_path / "state")
        await ended(gateway, await begin(gateway, anna), anna)
        assert anna["Authorization"].removeprefix("Bearer ").encode() not in on_disk(
            tmp_path / "state"
        )


async def test_callers_see_their_own_jobs_only(keys: Any) -> None:
    flag, anna, ben = keys
    async with running(flags=[flag]) as gateway:
        jobs = [await begin(gateway, anna, question=f"{QUESTION} {n}") for n in range(3)]
        for method, address in (
            ("GET", jobs[0]),
            ("GET", f"{jobs[0]}/events"),
            ("DELETE", jobs[0]),
        ):
            check_problem(
                await gateway.client.request(method, address, headers=ben), 404, "unknown_job"
            )
            check_problem(await gateway.client.request(method, address), 401, "not_signed_in")
        page = (await gateway.client.get("/v1/queries?limit=2", headers=anna)).json()
        rest = await gateway.client.get(f"/v1/queries?before={page['next']}", headers=anna)
        listed = [job["id"] for job in page["jobs"] + rest.json()["jobs"]]
        assert [f"/v1/queries/{job_id}" for job_id in listed] == jobs[::-1]
        assert rest.json()["next"] is None
        others = (await gateway.client.get("/v1/queries", headers=ben)).json()
        assert (others["jobs"], others["next"]) == ([], None)
        foreign = await gateway.client.get(f"/v1/queries?before={listed[0]}", headers=ben)
        check_problem(foreign, 404, "unknown_job")


async def test_without_sign_in_nobody_is_shown_a_list() -> None:
    async with running() as gateway:
        await begin(gateway)
        check_problem(await gateway.client.get("/v1/queries"), 403, "not_allowed")


async def test_a_key_asks_once_however_often_and_at_once_it_is_sent() -> None:
    gate = Gate()
    async with running(gate) as gateway:
        asking = [asyncio.create_task(ask(gateway, KEY)) for _ in range(3)]
        await gateway.participant.started.wait()
        gate.open.set()
        answers = [await task for task in asking]
        answers.append(await ask(gateway, KEY))
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.text for answer in answers} == {answers[0].text}
        assert answers[0].json()["answer"] == ANSWER
        assert len(gateway.participant.requests) == 1


async def test_a_key_with_another_body_is_refused() -> None:
    async with running() as gateway:
        await ask(gateway, KEY)
        check_problem(await ask(gateway, KEY, question="Else?"), 422, "idempotency_key_reused")
        assert len(gateway.participant.requests) == 1


async def test_a_key_is_its_callers_own(keys: Any) -> None:
    flag, anna, ben = keys
    async with running(flags=[flag]) as gateway:
        await ask(gateway, KEY | anna)
        assert (await ask(gateway, KEY | ben, question="Else?")).status_code == 200


async def test_a_key_gives_the_same_job_and_a_stream_of_its_events() -> None:
    async with running() as gateway:
        assert await begin(gateway, KEY) == await begin(gateway, KEY)
        other = {"Idempotency-Key": "order-18"}
        streams = [await ask(gateway, other, stream=True) for _ in range(2)]
        assert streams[0].text == streams[1].text
        assert events_of(streams[0].text)[-1] == ("5", "report")
        assert len(gateway.participant.requests) == 2


async def test_a_failure_frees_its_key() -> None:
    async with running(failing(NoContributorsError("nobody joined"))) as gateway:
        check_problem(await ask(gateway, KEY), 503, "no_contributors")
        gateway.participant.script = good_script
        assert (await ask(gateway, KEY)).status_code == 200


async def test_an_unusable_key_is_refused() -> None:
    async with running() as gateway:
        check_problem(await ask(gateway, {"Idempotency-Key": "a b"}), 422, "invalid_request")
        both = await ask(gateway, background=True, stream=True)
        check_problem(both, 422, "invalid_request")


async def test_a_restart_keeps_answers_and_says_what_was_lost(state: str) -> None:
    gate = Gate()
    gate.open.set()
    async with running(gate, flags=[state, NO_GRACE]) as gateway:
        answered = await begin(gateway)
        before = await ended(gateway, answered)
        gate.open.clear()
        unfinished = await begin(gateway)
    async with running(flags=[state]) as gateway:
        assert (await gateway.client.get(answered)).json() == before
        lost = (await gateway.client.get(unfinished)).json()
        assert (lost["status"], lost["problem"]["code"]) == ("lost", "job_lost")
        assert lost["problem"]["detail"] == "the gateway was stopped while it ran; ask again"
        assert events_of((await gateway.client.get(f"{unfinished}/events")).text)[-1][1] == "error"


async def test_a_job_that_runs_at_a_stop_has_the_grace_to_end(state: str) -> None:
    gate = Gate()
    async with running(gate, flags=[state, "--grace-s=60"]) as gateway:
        job = await begin(gateway)
        await first_event(gateway, job)
        gate.open.set()
    async with running(flags=[state]) as gateway:
        assert (await gateway.client.get(job)).json()["status"] == "done"


async def first_event(gateway: Harness, job: str) -> None:
    """Return once the job's session is open."""
    async with served(gateway) as (url, _), httpx.AsyncClient(base_url=url) as client:
        async with aconnect_sse(client, "GET", f"{job}/events") as source:
            await anext(source.aiter_sse())


async def test_further_jobs_wait_in_order_and_a_bounded_number() -> None:
    gate = Gate()
    async with running(gate, flags=["--jobs-at-once=1", "--jobs-waiting=1", NO_GRACE]) as gateway:
        jobs = [await begin(gateway, question=f"{n}?") for n in range(2)]
        check_problem(await ask(gateway, background=True), 429, "rate_limited")
        await gateway.participant.started.wait()
        assert (await gateway.client.get(jobs[1])).json()["status"] == "queued"
        gate.open.set()
        assert [(await ended(gateway, job))["status"] for job in jobs] == ["done", "done"]
        assert [request.question for request in gateway.participant.requests] == ["0?", "1?"]


async def test_a_background_query_asks_again_while_there_is_no_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line, "FIRST_PAUSE_S", 0.0)
    refusals = iter([NodeBusyError("all places taken")] * 2)

    async def script(request: participant_pb2.QueryRequest) -> AsyncIterator[QueryEvent]:
        for error in refusals:
            raise error
        yield opened()
        yield QueryEvent(result=result())

    async with running(script) as gateway:
        assert (await ended(gateway, await begin(gateway)))["status"] == "done"
        assert len(gateway.participant.requests) == 3


async def test_who_does_not_want_to_wait_is_told_at_once_that_there_is_no_place() -> None:
    async with running(failing(NodeBusyError("all places taken"))) as gateway:
        for is_streamed in (False, True):
            refusal = await ask(gateway, KEY, stream=is_streamed, max_wait_s=0)
            check_problem(refusal, 429, "node_busy")
            assert "retry-after" in refusal.headers


async def test_the_oldest_ended_job_makes_room() -> None:
    async with running(flags=["--max-jobs-per-caller=1", NO_GRACE]) as gateway:
        old = await begin(gateway)
        await ended(gateway, old)
        new = await begin(gateway)
        check_problem(await gateway.client.get(old), 404, "unknown_job")
        assert (await ended(gateway, new))["status"] == "done"


async def test_unfinished_jobs_make_no_room() -> None:
    flags = ["--max-jobs-per-caller=1", NO_GRACE]
    async with running(Gate(), flags=flags) as gateway:
        await begin(gateway)
        check_problem(await ask(gateway, background=True), 429, "rate_limited")


async def test_too_many_events_are_not_kept_but_the_answer_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs_running, "MAX_EVENT_BYTES", 0)
    async with running() as gateway:
        job = await begin(gateway)
        assert (await ended(gateway, job))["answer"]["answer"] == ANSWER
        assert events_of((await gateway.client.get(f"{job}/events")).text) == [("1", "report")]


@pytest.fixture
def spoil(state: str, tmp_path: Path) -> Callable[[], Awaitable[None]]:
    """Make the file of jobs refuse to be written, as a disk that failed."""
    import sqlite3  # noqa: PLC0415

    async def take_away() -> None:
        with sqlite3.connect(tmp_path / "state" / "jobs.db") as connection:
            connection.execute(
                "CREATE TRIGGER full BEFORE INSERT ON events BEGIN "
                "SELECT RAISE(ABORT, 'database or disk is full'); END"
            )
        connection.close()

    return take_away


async def test_jobs_that_cannot_be_kept_are_a_clear_problem(
    state: str, spoil: Callable[[], Awaitable[None]]
) -> None:
    gate = Gate()
    async with running(gate, flags=[state, NO_GRACE]) as gateway:
        job = await begin(gateway)
        await spoil()
        gate.open.set()
        stream = await gateway.client.get(f"{job}/events")
        assert "jobs_unavailable" in stream.text
        detail = check_problem(await gateway.client.get(job), 503, "jobs_unavailable")["detail"]
        assert "full" in detail
        assert "make room" in detail
        check_problem(await ask(gateway, KEY), 503, "jobs_unavailable")
        assert (await ask(gateway)).status_code == 200  # ordinary queries need no disk
