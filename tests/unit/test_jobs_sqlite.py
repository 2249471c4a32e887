"""Jobs in SQLite: what outlives a restart, what a deletion leaves, and disks that fail."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fedattn.core.errors import ConfigurationError, JobsUnavailableError
from fedattn.rest.jobs import JobStatus
from gateway.jobs_rows import JobEvent, JobRow
from gateway.jobs_sqlite import SqliteJobStore

SECRET = "Ward 7 had the outbreak"
LONG = SECRET + " and so on" * 2000  # longer than a page of the file
TOKEN = JobEvent(name="token", data=SECRET)
REPORT = JobEvent(name="report", data=LONG)
ERROR = JobEvent(name="error", data="{}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteJobStore]:
    async with SqliteJobStore(path) as opened:
        yield opened


def row(job_id: str = "a", account: str = "key 1", **fields: object) -> JobRow:
    values = {"is_background": True, "question": LONG, "created": 1.0} | fields
    return JobRow(id=job_id, account=account, **values)  # type: ignore[arg-type]


def on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


async def finished(store: SqliteJobStore, job_id: str = "a", now: float = 9.0) -> None:
    await store.add(row(job_id))
    await store.start(job_id, 2.0)
    await store.append(job_id, TOKEN)
    await store.finish(job_id, JobStatus.DONE, REPORT, now)


async def test_a_finished_job_outlives_a_restart(path: Path) -> None:
    async with SqliteJobStore(path) as store:
        await finished(store)
    async with SqliteJobStore(path) as store:
        found = await store.find("key 1", "a")
        assert found == row(status=JobStatus.DONE, started=2.0, ended=9.0)
        assert await store.last_event("a") == JobEvent(number=2, name="report", data=LONG)
        assert await store.list_unfinished() == []


async def test_the_file_is_for_its_owner_alone(store: SqliteJobStore, path: Path) -> None:
    await finished(store)
    modes = {file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == {0o600}


async def test_what_is_deleted_is_in_no_file(store: SqliteJobStore, path: Path) -> None:
    await finished(store, "a")
    await finished(store, "b")
    await store.append("b", TOKEN)
    assert SECRET.encode() in on_disk(path)
    await store.delete("a")
    await store.delete("b")
    assert SECRET.encode() not in on_disk(path)


async def test_what_is_cancelled_keeps_no_text_but_that_it_was(
    store: SqliteJobStore, path: Path
) -> None:
    await store.add(row(key="k", body_sha256=b"digest of the body"))
    for _ in range(3):
        await store.append("a", TOKEN)
    await store.cancel("a", ERROR, 5.0)
    assert SECRET.encode() not in on_disk(path)
    assert b"digest of the body" not in on_disk(path)
    assert await store.find("key 1", "a") == row(
        status=JobStatus.CANCELLED, question=None, ended=5.0
    )
    assert await store.last_event("a") == JobEvent(number=4, name="error", data="{}")
    assert len(await store.events("a", 0)) == 1


async def test_what_ended_long_ago_expires_from_the_disk(store: SqliteJobStore, path: Path) -> None:
    await finished(store, "old", now=10.0)
    await store.expire(10.5)
    assert SECRET.encode() not in on_disk(path)
    await finished(store, "new", now=20.0)
    await store.add(row("unfinished"))
    await store.expire(20.0)
    assert [job.id for job in await store.page("key 1", None, 9)] == ["unfinished", "new"]


async def test_a_full_disk_is_said_and_keeps_what_is_there(store: SqliteJobStore) -> None:
    await finished(store)
    pages = await store._connection.execute_fetchall("PRAGMA page_count")
    await store._connection.execute_fetchall(f"PRAGMA max_page_count = {next(iter(pages))[0]}")
    with pytest.raises(JobsUnavailableError, match=r"full.*make room"):
        await store.add(row("b"))
    assert await store.find("key 1", "b") is None
    await store._connection.execute_fetchall("PRAGMA max_page_count = 10000")
    await store.delete("a")
    await store.add(row("b"))


async def test_a_disk_that_takes_nothing_is_said(store: SqliteJobStore) -> None:
    await store._connection.execute_fetchall("PRAGMA query_only = ON")
    with pytest.raises(JobsUnavailableError, match=r"readonly.*--state"):
        await store.add(row())


async def test_texts_that_another_process_still_reads_are_not_said_to_be_gone(
    store: SqliteJobStore, path: Path
) -> None:
    await finished(store)
    with sqlite3.connect(path) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM jobs").fetchall()
        with pytest.raises(JobsUnavailableError, match="another process"):
            await store.delete("a")
    reader.close()


async def test_a_write_is_whole_though_its_waiter_is_cancelled(store: SqliteJobStore) -> None:
    adding = asyncio.create_task(store.add(row()))
    await asyncio.sleep(0)  # it has begun
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    await store.add(row("b"))
    assert await store.count("key 1") == (2, 2)


async def test_without_a_file_jobs_are_kept_in_memory() -> None:
    async with SqliteJobStore(None) as store:
        await finished(store)
        await store.delete("a")
        assert await store.count("key 1") == (0, 0)


async def test_a_file_of_another_version_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(ConfigurationError, match=r"form 7.*remove"):
        async with SqliteJobStore(path):
            pass


@pytest.fixture
def no_database(path: Path) -> Path:
    path.write_bytes(b"not a database" * 1000)
    return path


async def test_a_file_that_is_no_database_is_said(no_database: Path) -> None:
    with pytest.raises(JobsUnavailableError, match="not a database"):
        async with SqliteJobStore(no_database):
            pass
