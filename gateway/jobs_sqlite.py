"""Jobs and their events in SQLite."""

import asyncio
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import aiosqlite

from fedattn.core.errors import JobsUnavailableError
from fedattn.rest.jobs import JobStatus
from gateway.jobs_rows import JobEvent, JobRow
from gateway.jobs_schema import prepare

_COLUMNS = "id, account, status, is_background, question, key, body_sha256, created, started, ended"
_ENDED = "status NOT IN ('queued', 'running')"

_BUSY_TIMEOUT_S = 1.0

_Statement: TypeAlias = tuple[str, tuple[Any, ...]]


class _Checkpoint(StrEnum):
    """How SQLite's log goes into its file after a change."""

    SYNC = "PASSIVE"
    """So that the change outlives a power cut."""
    ERASE = "TRUNCATE"
    """So that what was deleted is not in the log either."""


class SqliteJobStore:
    """Keeps jobs; open inside `async with`, by one process at a time.

    What is deleted is overwritten, in the file and in its log. Every method raises
    JobsUnavailableError if the file cannot be read or written.

    Args:
        path: of the file, which is made for this user alone; None keeps jobs in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._one_at_a_time = asyncio.Lock()

    async def __aenter__(self) -> Self:
        if self._path is not None:
            with _explaining():
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        address = ":memory:" if self._path is None else self._path
        with _explaining():
            self._connection = await aiosqlite.connect(
                address, isolation_level=None, timeout=_BUSY_TIMEOUT_S
            )
        try:
            with _explaining():
                await prepare(self._connection, in_memory=self._path is None)
        except BaseException:
            await self._connection.close()
            raise
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        async with self._one_at_a_time:  # what is being written is written
            await self._connection.close()

    async def add(self, job: JobRow) -> None:
        """Keep a new job."""
        values = tuple(getattr(job, name) for name in _COLUMNS.split(", "))
        marks = ", ".join("?" * len(values))
        await self._write((f"INSERT INTO jobs({_COLUMNS}) VALUES({marks})", values))

    async def start(self, job_id: str, now: float) -> None:
        """Note that a job's session is open."""
        await self._write(
            ("UPDATE jobs SET status = 'running', started = ? WHERE id = ?", (now, job_id))
        )

    async def append(self, job_id: str, event: JobEvent) -> None:
        """Keep what happened next in a job."""
        await self._write(_append(job_id, event))

    async def finish(self, job_id: str, status: JobStatus, event: JobEvent, now: float) -> None:
        """Keep how a job ended. Only an answer stays under its idempotency key."""
        ending = ("UPDATE jobs SET status = ?, ended = ? WHERE id = ?", (status, now, job_id))
        freeing = ("UPDATE jobs SET key = NULL, body_sha256 = NULL WHERE id = ?", (job_id,))
        is_done = status is JobStatus.DONE
        await self._write(
            _append(job_id, event),
            ending,
            *(() if is_done else (freeing,)),
            then=_Checkpoint.SYNC,
        )

    async def cancel(self, job_id: str, event: JobEvent, now: float) -> None:
        """End a job, and remove whatever was asked and answered."""
        await self._write(
            _append(job_id, event),
            ("DELETE FROM events WHERE job_id = ? AND name != 'error'", (job_id,)),
            (
                "UPDATE jobs SET status = 'cancelled', ended = ?, question = NULL, key = NULL, "
                "body_sha256 = NULL WHERE id = ?",
                (now, job_id),
            ),
            then=_Checkpoint.ERASE,
        )

    async def delete(self, job_id: str) -> None:
        """Remove a job and all its texts."""
        await self._write(("DELETE FROM jobs WHERE id = ?", (job_id,)), then=_Checkpoint.ERASE)

    async def expire(self, before: float) -> None:
        """Remove all jobs that ended before a time."""
        expired = await self._read("SELECT 1 FROM jobs WHERE ended < ? LIMIT 1", (before,))
        if expired:
            await self._write(
                ("DELETE FROM jobs WHERE ended < ?", (before,)), then=_Checkpoint.ERASE
            )

    async def find(self, account: str, job_id: str) -> JobRow | None:
        """An account's job."""
        rows = await self._jobs("WHERE account = ? AND id = ?", (account, job_id))
        return rows[0] if rows else None

    async def find_key(self, account: str, key: str) -> JobRow | None:
        """An account's job with an idempotency key."""
        rows = await self._jobs("WHERE account = ? AND key = ?", (account, key))
        return rows[0] if rows else None

    async def find_oldest_ended(self, account: str) -> JobRow | None:
        """The account's job that gives way first to a new one."""
        rows = await self._jobs(f"WHERE account = ? AND {_ENDED} ORDER BY number", (account,), 1)
        return rows[0] if rows else None

    async def page(self, account: str, before: str | None, limit: int) -> list[JobRow]:
        """An account's jobs, the newest first: those older than the job `before`."""
        older, values = "", tuple[str, ...]()
        if before is not None:
            older, values = "AND number < (SELECT number FROM jobs WHERE id = ?)", (before,)
        return await self._jobs(
            f"WHERE account = ? {older} ORDER BY number DESC", (account, *values), limit
        )

    async def list_unfinished(self) -> list[JobRow]:
        """Everybody's jobs that have not ended."""
        return await self._jobs(f"WHERE NOT ({_ENDED})", ())

    async def count(self, account: str) -> tuple[int, int]:
        """Jobs of an account, and of all."""
        sql = "SELECT COALESCE(SUM(account = ?), 0), COUNT(*) FROM jobs"
        (counts,) = await self._read(sql, (account,))
        return counts[0], counts[1]

    async def events(self, job_id: str, after: int) -> list[JobEvent]:
        """What happened in a job after the event with a number."""
        rows = await self._read(
            "SELECT number, name, data FROM events WHERE job_id = ? AND number > ? ORDER BY number",
            (job_id, after),
        )
        return [JobEvent(number=row[0], name=row[1], data=row[2]) for row in rows]

    async def last_event(self, job_id: str) -> JobEvent | None:
        """The answer or the problem of a job that has ended."""
        rows = await self._read(
            "SELECT number, name, data FROM events WHERE job_id = ? ORDER BY number DESC LIMIT 1",
            (job_id,),
        )
        events = [JobEvent(number=row[0], name=row[1], data=row[2]) for row in rows]
        return events[0] if events and events[0].is_last else None

    async def _jobs(self, where: str, values: tuple[Any, ...], limit: int = -1) -> list[JobRow]:
        sql = f"SELECT {_COLUMNS} FROM jobs {where} LIMIT ?"  # noqa: S608 - all of it stands here
        rows = await self._read(sql, (*values, limit))
        return [_job_of(row) for row in rows]

    async def _read(self, sql: str, values: tuple[Any, ...]) -> Iterable[sqlite3.Row]:
        async with self._one_at_a_time:
            with _explaining():
                return await self._connection.execute_fetchall(sql, values)

    async def _write(self, *statements: _Statement, then: _Checkpoint | None = None) -> None:
        """All of it or nothing, whether or not whoever waits for it is cancelled meanwhile."""
        await asyncio.shield(self._commit(statements, then))

    async def _commit(self, statements: Iterable[_Statement], then: _Checkpoint | None) -> None:
        async with self._one_at_a_time:
            with _explaining():
                await self._connection.execute_fetchall("BEGIN IMMEDIATE")
                try:
                    for sql, values in statements:
                        await self._connection.execute_fetchall(sql, values)
                    await self._connection.execute_fetchall("COMMIT")
                except sqlite3.Error:
                    if self._connection.in_transaction:  # a full disk has rolled back by itself
                        await self._connection.execute_fetchall("ROLLBACK")
                    raise
                if then is not None:
                    await self._move_log(then)

    async def _move_log(self, how: _Checkpoint) -> None:
        rows = await self._connection.execute_fetchall(f"PRAGMA wal_checkpoint({how})")
        if how is _Checkpoint.ERASE and any(is_busy for is_busy, *_ in rows):
            raise sqlite3.OperationalError("another process reads the file")


def _append(job_id: str, event: JobEvent) -> _Statement:
    number = "(SELECT COALESCE(MAX(number), 0) + 1 FROM events WHERE job_id = ?)"
    return (
        f"INSERT INTO events(job_id, number, name, data) VALUES(?, {number}, ?, ?)",
        (job_id, job_id, event.name, event.data),
    )


def _job_of(row: sqlite3.Row) -> JobRow:
    fields = dict(zip(_COLUMNS.split(", "), row, strict=True))
    fields["status"] = JobStatus(fields["status"])
    fields["is_background"] = bool(fields["is_background"])
    return JobRow(**fields)


@contextmanager
def _explaining() -> Iterator[None]:
    """Raise JobsUnavailableError for whatever SQLite or the disk says."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise JobsUnavailableError(
            f"the gateway cannot keep jobs ({error}); make room on its disk, or let it read and "
            f"write its --state folder"
        ) from error
