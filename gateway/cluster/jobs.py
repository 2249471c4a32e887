"""Jobs that several gateways keep together, in NATS."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from secrets import token_hex
from types import TracebackType
from typing import Self

import nats.js.errors

from fedattn.cluster.connection import Failure
from fedattn.cluster.mirror import Held
from fedattn.core.errors import CorruptFrameError, JobsUnavailableError
from fedattn.rest.jobs import JobStatus
from gateway.cluster.link import Link
from gateway.cluster.rows import write_row
from gateway.cluster.texts import Texts
from gateway.jobs_port import TakenKeyError
from gateway.jobs_rows import JobEvent, JobRow

_PATIENCE_S = 15.0
"""What a job that runs wants to have kept waits so long for NATS to come back."""
_BETWEEN_TRIES_S = 0.2


class NatsJobStore:
    """Rows in a bucket, which is mirrored here; texts in a stream. All of it is sealed.

    A gateway reads what any gateway wrote before. A row is changed by the gateway that runs the
    job, and by others once that is gone; who comes second finds it changed.

    Args:
        link: to NATS; entered by whoever made it.
        patience_s: wait for NATS of what a running job writes, seconds.
    """

    def __init__(self, link: Link, patience_s: float = _PATIENCE_S) -> None:
        self._link, self._texts, self._patience_s = link, Texts(link), patience_s
        self._one_at_a_time = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        async with self._one_at_a_time:  # what is being written is written
            pass

    async def add(self, job: JobRow) -> None:
        await self._once(lambda: self._add(job))

    async def start(self, job_id: str, now: float) -> None:
        def started(row: JobRow) -> JobRow:
            return replace(row, status=JobStatus.RUNNING, started=now)

        await self._patiently(lambda: self._change(job_id, started))

    async def append(self, job_id: str, event: JobEvent) -> None:
        message_id = token_hex(16)
        await self._patiently(lambda: self._texts.append(job_id, event, message_id))

    async def finish(self, job_id: str, status: JobStatus, event: JobEvent, now: float) -> None:
        await self._patiently(lambda: self._finish(job_id, status, event, now))

    async def cancel(self, job_id: str, event: JobEvent, now: float) -> None:
        await self._once(lambda: self._cancel(job_id, event, now))

    async def delete(self, job_id: str) -> None:
        await self._once(lambda: self._delete(job_id))

    async def expire(self, before: float) -> None:
        for held in await self._all():
            if held.value.ended is not None and held.value.ended < before:
                await self.delete(held.value.id)

    async def find(self, account: str, job_id: str) -> JobRow | None:
        await self._all()
        held = self._link.rows.held.get(self._link.key.name(job_id))
        if held is None or held.value.account != account:
            return None
        return await self._whole(held.value)

    async def find_key(self, account: str, key: str) -> JobRow | None:
        held = [one for one in await self._all() if _has_key(one.value, account, key)]
        return await self._whole(min(held, key=lambda one: one.since).value) if held else None

    async def find_oldest_ended(self, account: str) -> JobRow | None:
        rows = [row for row in await self._rows(account) if row.status.has_ended]
        return rows[-1] if rows else None

    async def page(self, account: str, before: str | None, limit: int) -> list[JobRow]:
        rows = await self._rows(account)
        ids = [row.id for row in rows]
        begin = ids.index(before) + 1 if before in ids else 0
        return [await self._whole(row) for row in rows[begin : begin + limit]]

    async def list_unfinished(self) -> list[JobRow]:
        return [one.value for one in await self._all() if not one.value.status.has_ended]

    async def count(self, account: str) -> tuple[int, int]:
        rows = [one.value for one in await self._all()]
        return sum(row.account == account for row in rows), len(rows)

    async def events(self, job_id: str, after: int) -> list[JobEvent]:
        with _explaining():
            found = await self._texts.events(job_id, after)
        if found and found[-1].is_last and not await self._has_ended(job_id):
            found.pop()  # it is told when the job says so too, which is a moment later
        return found

    async def last_event(self, job_id: str) -> JobEvent | None:
        with _explaining():
            event = await self._texts.last_event(job_id)
        return event if event is not None and event.is_last else None

    # -- reading ---------------------------------------------------------------------------------

    async def _all(self) -> list[Held[JobRow]]:
        with _explaining():
            await self._link.rows.catch_up(self._link.connection().rows)
        return list(self._link.rows.held.values())

    async def _has_ended(self, job_id: str) -> bool:
        await self._all()
        held = self._link.rows.held.get(self._link.key.name(job_id))
        return held is None or held.value.status.has_ended

    async def _rows(self, account: str) -> list[JobRow]:
        """Without their questions, the newest first."""
        rows = [one.value for one in await self._all() if one.value.account == account]
        return sorted(rows, key=lambda row: (row.created, row.id), reverse=True)

    async def _whole(self, row: JobRow) -> JobRow:
        if row.status is JobStatus.CANCELLED:
            return row
        with _explaining():
            return replace(row, question=await self._texts.question(row.id))

    # -- writing ---------------------------------------------------------------------------------

    async def _once(self, work: Callable[[], Awaitable[None]]) -> None:
        """All of it, whether or not whoever waits for it is cancelled meanwhile."""
        task = asyncio.ensure_future(self._alone(work))
        task.add_done_callback(_look_at)
        await asyncio.shield(task)

    async def _alone(self, work: Callable[[], Awaitable[None]]) -> None:
        async with self._one_at_a_time:
            with _explaining():
                await work()

    async def _patiently(self, work: Callable[[], Awaitable[None]]) -> None:
        """As `_once`, again and again while NATS is away."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience_s
        while True:
            try:
                return await self._once(work)
            except JobsUnavailableError:
                left = until - loop.time()
                if left <= 0:
                    raise
            await asyncio.sleep(_BETWEEN_TRIES_S)
            await self._link.wait_connected(max(0.0, left))

    async def _add(self, job: JobRow) -> None:
        rows, name = self._link.connection().rows, self._link.key.name(job.id)
        sealed = self._link.key.seal(self._link.rows.place(name), write_row(job))
        revision = await rows.create(name, sealed)
        await self._link.rows.catch_up(rows, revision)
        if job.key is not None and any(
            _has_key(one.value, job.account, job.key) and one.since < revision
            for one in self._link.rows.held.values()
        ):
            await self._link.connection().purge(rows, name)
            raise TakenKeyError("another job has this idempotency key")
        await self._texts.ask(job.id, job.question or "")

    async def _change(self, job_id: str, change: Callable[[JobRow], JobRow]) -> None:
        """Change a row that has not ended."""
        connection, name = self._link.connection(), self._link.key.name(job_id)
        await self._link.rows.catch_up(connection.rows)
        held = self._link.rows.held.get(name)
        if held is None or held.value.status.has_ended:
            return
        sealed = self._link.key.seal(self._link.rows.place(name), write_row(change(held.value)))
        try:
            revision = await connection.rows.update(name, sealed, last=held.revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            return  # another gateway was first
        await self._link.rows.catch_up(connection.rows, revision)

    async def _finish(self, job_id: str, status: JobStatus, event: JobEvent, now: float) -> None:
        await self._texts.append(job_id, event, token_hex(16))
        last = await self._texts.last_event(job_id)
        if last is not None and last.name == "report":
            status = JobStatus.DONE  # it was kept, and then its gateway died

        def finished(row: JobRow) -> JobRow:
            row = replace(row, status=status, ended=now)
            is_done = status is JobStatus.DONE
            return row if is_done else replace(row, key=None, body_sha256=None)

        await self._change(job_id, finished)

    async def _cancel(self, job_id: str, event: JobEvent, now: float) -> None:
        last = await self._texts.last_event(job_id)
        await self._texts.remove(job_id)
        number = 1 if last is None else last.number + 1
        await self._texts.append(job_id, event, token_hex(16), number)

        def cancelled(row: JobRow) -> JobRow:
            status = JobStatus.CANCELLED
            return replace(row, status=status, ended=now, key=None, body_sha256=None)

        await self._change(job_id, cancelled)

    async def _delete(self, job_id: str) -> None:
        connection, name = self._link.connection(), self._link.key.name(job_id)
        await self._texts.remove(job_id)
        await connection.purge(connection.rows, name)
        await self._link.rows.catch_up(connection.rows)


def _look_at(task: asyncio.Future[None]) -> None:
    """Take note of how it ended, as whoever waited for it may be gone."""
    if not task.cancelled():
        task.exception()


def _has_key(row: JobRow, account: str, key: str) -> bool:
    return row.account == account and row.key == key


@contextmanager
def _explaining() -> Iterator[None]:
    """Raise JobsUnavailableError for whatever NATS says."""
    try:
        yield
    except (*Failure, CorruptFrameError, ValueError) as error:
        reason = str(error)[:160] or type(error).__name__
        raise JobsUnavailableError(
            f"the gateway cannot keep jobs in NATS ({reason}); look whether its servers run and "
            f"have room"
        ) from error
