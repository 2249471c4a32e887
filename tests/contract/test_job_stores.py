"""What every store of jobs does: SQLite for one gateway, NATS for several."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fedattn.rest.jobs import JobStatus
from gateway.jobs_port import JobStore
from gateway.jobs_rows import JobEvent, JobRow
from tests.harness.job_stores import Opens, nats_stores, sqlite_stores
from tests.harness.nats import BINARY, NO_NATS, running_nats

TOKEN = JobEvent(name="token", data="Ward 7")
REPORT = JobEvent(name="report", data="Ward 7 had the outbreak" + " and so on" * 2000)
ERROR = JobEvent(name="error", data="{}")


@pytest.fixture(params=["sqlite", "nats"])
async def opens(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opens]:
    if request.param == "sqlite":
        yield sqlite_stores(tmp_path / "jobs.db")
        return
    if BINARY is None:
        pytest.skip(NO_NATS)
    async with running_nats(tmp_path / "nats") as server:
        yield nats_stores(server.url)


@pytest.fixture
async def store(opens: Opens) -> AsyncIterator[JobStore]:
    async with opens() as opened:
        yield opened


def row(job_id: str = "a", account: str = "key 1", **fields: object) -> JobRow:
    values = {"is_background": True, "question": "Which ward?", "created": 1.0} | fields
    return JobRow(id=job_id, account=account, **values)  # type: ignore[arg-type]


async def finished(store: JobStore, job_id: str = "a", now: float = 9.0) -> None:
    await store.add(row(job_id))
    await store.start(job_id, 2.0)
    await store.append(job_id, TOKEN)
    await store.finish(job_id, JobStatus.DONE, REPORT, now)


async def test_a_finished_job_is_whole_for_who_opens_the_store_later(opens: Opens) -> None:
    async with opens() as store:
        await finished(store)
    async with opens() as store:
        found = await store.find("key 1", "a")
        assert found == row(status=JobStatus.DONE, started=2.0, ended=9.0)
        last = await store.last_event("a")
        assert last == JobEvent(number=2, name="report", data=REPORT.data)
        assert await store.list_unfinished() == []


async def test_events_are_numbered_and_read_after_a_number(store: JobStore) -> None:
    await store.add(row())
    for number in range(1, 6):
        await store.append("a", TOKEN)
        assert [one.number for one in await store.events("a", number - 1)] == [number]
    assert [one.number for one in await store.events("a", 2)] == [3, 4, 5]
    assert [one.number for one in await store.events("a", 0)] == [1, 2, 3, 4, 5]
    assert await store.last_event("a") is None  # it has not ended
    assert await store.events("b", 0) == []


async def test_what_is_cancelled_keeps_no_text_but_that_it_was(store: JobStore) -> None:
    await store.add(row(key="k", body_sha256=b"digest of the body"))
    for _ in range(3):
        await store.append("a", TOKEN)
    await store.cancel("a", ERROR, 5.0)
    found = await store.find("key 1", "a")
    assert found == row(status=JobStatus.CANCELLED, question=None, ended=5.0)
    assert await store.last_event("a") == JobEvent(number=4, name="error", data="{}")
    assert len(await store.events("a", 0)) == 1
    assert await store.find_key("key 1", "k") is None


async def test_what_is_deleted_is_gone_and_its_id_is_nobodys(store: JobStore) -> None:
    await finished(store)
    await store.delete("a")
    assert await store.find("key 1", "a") is None
    assert await store.events("a", 0) == []
    assert await store.count("key 1") == (0, 0)


async def test_what_ended_long_ago_expires(store: JobStore) -> None:
    await finished(store, "old", now=10.0)
    await store.expire(10.5)
    await finished(store, "new", now=20.0)
    await store.add(row("unfinished", created=2.0))
    await store.expire(20.0)
    assert [job.id for job in await store.page("key 1", None, 9)] == ["unfinished", "new"]


async def test_only_an_answer_stays_under_its_key(store: JobStore) -> None:
    for job_id, status in (("done", JobStatus.DONE), ("failed", JobStatus.FAILED)):
        await store.add(row(job_id, key=job_id, body_sha256=b"\0\xff"))
        running = await store.find_key("key 1", job_id)
        assert running is not None
        assert running.body_sha256 == b"\0\xff"
        event = REPORT if status is JobStatus.DONE else ERROR
        await store.finish(job_id, status, event, 9.0)
    found = await store.find_key("key 1", "done")
    assert found is not None
    assert found.id == "done"
    assert await store.find_key("key 1", "failed") is None
    assert await store.find_key("key 2", "done") is None


async def test_a_page_has_only_the_accounts_own_jobs(store: JobStore) -> None:
    for number in range(5):
        await store.add(row(str(number), f"key {number % 2}", created=float(number)))
    assert [job.id for job in await store.page("key 0", None, 2)] == ["4", "2"]
    assert [job.id for job in await store.page("key 0", "2", 2)] == ["0"]
    assert await store.find("key 0", "1") is None
    assert await store.count("key 1") == (2, 5)
    assert len(await store.list_unfinished()) == 5


async def test_the_oldest_that_has_ended_makes_room(store: JobStore) -> None:
    await store.add(row("runs", created=0.5))
    assert await store.find_oldest_ended("key 1") is None
    for number, job_id in enumerate(("first", "second")):
        await store.add(row(job_id, created=1.0 + number))
        await store.finish(job_id, JobStatus.DONE, REPORT, 9.0)
    oldest = await store.find_oldest_ended("key 1")
    assert oldest is not None
    assert oldest.id == "first"
