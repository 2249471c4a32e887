"""Queries that go on by themselves, and are kept: the jobs of all callers."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import structlog

from fedattn.core.errors import (
    JobCancelledError,
    JobLostError,
    JobsUnavailableError,
    KeyReusedError,
    NodeBusyError,
    RateLimitedError,
    UnknownJobError,
)
from fedattn.rest.events import QueuedEvent
from fedattn.rest.jobs import JobStatus
from fedattn.runtime.background import keep_running
from gateway.callers import Caller
from gateway.jobs_asked import NewJob
from gateway.jobs_limits import JobLimits
from gateway.jobs_port import JobStore, Siblings, TakenKeyError
from gateway.jobs_rows import JobEvent, JobRow
from gateway.jobs_running import Ask, JobRun, event_of
from gateway.problems import problem_of

_SWEEP_EVERY_S = 60.0
_LOOK_EVERY_S = 0.2
"""At a job that runs at another gateway."""
_STOPPED = "the gateway was stopped while it ran; ask again"

log = structlog.get_logger(__name__)


class Jobs:
    """Runs and keeps jobs; open inside `async with`.

    Args:
        store: where they are kept.
        siblings: who else keeps jobs there.
        limits: how many.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: JobStore,
        siblings: Siblings,
        limits: JobLimits,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits
        self._store, self._siblings = store, siblings
        self._clock = clock
        self._runs: dict[str, JobRun] = {}
        self._changing = asyncio.Lock()
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._store)
            await self._give_up_unfinished()
            sweeper = asyncio.create_task(keep_running(self._sweep))
            stack.callback(sweeper.cancel)
            stack.push_async_callback(self._stop)
            self._resources = stack.pop_all()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self._resources.aclose()

    async def submit(self, new: NewJob) -> JobRow:
        """Begin a job; the one that runs or has run, if the same was asked with the same key.

        Raises:
            KeyReusedError: the key came with another body before.
            RateLimitedError: the caller has as many jobs as it may.
            NodeBusyError: so have all callers together.
            JobsUnavailableError: it cannot be kept.
        """
        async with self._changing:
            while True:
                known = await self._find_same(new)
                if known is not None:
                    return known
                try:
                    return await self._begin(new)
                except TakenKeyError:  # at another gateway, just now: the next look finds it
                    continue

    async def _begin(self, new: NewJob) -> JobRow:
        await self._check_waiting(new)
        await self._make_room(new.caller)
        row = JobRow(
            id=uuid.uuid4().hex,
            account=new.caller.account,
            is_background=new.is_background,
            question=new.question,
            key=new.key,
            body_sha256=None if new.key is None else new.body_sha256,
            created=self._clock(),
            gateway=self._siblings.name,
        )
        await self._store.add(row)
        self._start(row, new.ask)
        return row

    async def find(self, caller: Caller, job_id: str) -> JobRow:
        """A job of the caller.

        Raises:
            UnknownJobError: it has none with that id.
            JobsUnavailableError: the jobs are out of reach.
        """
        return await self._find(caller.account, job_id)

    async def page(self, caller: Caller, before: str | None, limit: int) -> list[JobRow]:
        """Jobs of the caller, the newest first; raises as `find`, of the job `before`."""
        if before is not None:
            await self.find(caller, before)
        return await self._store.page(caller.account, before, limit)

    def queued(self, row: JobRow) -> QueuedEvent | None:
        """Where a job stands in the line, if it waits."""
        run = self._runs.get(row.id)
        return None if run is None else run.queued

    async def outcome(self, row: JobRow) -> JobEvent | None:
        """The answer or the problem; None while there is neither."""
        return await self._store.last_event(row.id) if row.status.has_ended else None

    async def follow(self, row: JobRow, after: int = 0) -> AsyncIterator[JobEvent]:
        """What happened after an event, and what happens, up to the answer or the problem.

        Where it stands in the line is told without a number: it is not kept.

        Raises:
            UnknownJobError: the job was removed meanwhile.
            JobsUnavailableError: the jobs are out of reach.
        """
        is_settled, told = False, None
        while True:
            run = self._runs.get(row.id)
            changed = None if run is None else run.changed  # before looking: none is missed
            for event in await self._store.events(row.id, after):
                yield event
                after = event.number
                if event.is_last:
                    return
            if is_settled:
                return
            queued = self.queued(row)
            if queued is not None and queued != told:
                told = queued
                yield event_of(queued)
            if changed is not None:
                await changed.wait()
            elif self._runs_elsewhere(row):
                await asyncio.sleep(_LOOK_EVERY_S)
                row = await self._find(row.account, row.id)
            else:
                await self._find(row.account, row.id)
                is_settled = True

    async def wait_begun(self, row: JobRow) -> JobEvent:
        """The first that happens, which is a problem if no session opens; raises as `follow`."""
        async for event in self.follow(row):
            return event
        raise AssertionError("there is an event before the end")

    async def wait(self, row: JobRow) -> JobEvent:
        """The answer or the problem, once it is there.

        Raises:
            FedAttnError: as `follow`.
        """
        async for event in self.follow(row):
            if event.is_last:
                return event
        raise AssertionError("events end with the answer or the problem")

    async def remove(self, caller: Caller, job_id: str) -> None:
        """Remove a job from the disk; one that runs ends, and is kept as cancelled without texts.

        Raises:
            UnknownJobError: the caller has none with that id.
            JobsUnavailableError: the jobs are out of reach; its texts may still be there.
        """
        row = await self._find(caller.account, job_id)
        if self._runs_elsewhere(row):
            await self._siblings.request_cancel(row.gateway, row.account, job_id)
        else:
            await self.remove_here(caller.account, job_id)

    async def remove_here(self, account: str, job_id: str) -> None:
        """As `remove`, of a job that runs at no other gateway."""
        async with self._changing:
            row = await self._find_settled(account, job_id)
            run = self._runs.get(job_id)
            if run is not None:
                await run.cancel()
                row = await self._store.find(account, job_id) or row
            if row.status.has_ended:
                await self._store.delete(job_id)
            else:
                error = JobCancelledError("the job was cancelled; ask again if you still want it")
                await self._store.cancel(job_id, event_of(problem_of(error)), self._clock())
        if run is not None:
            run.note_change()

    async def _find(self, account: str, job_id: str) -> JobRow:
        row = await self._store.find(account, job_id)
        if row is not None and not self._is_lost(row):
            return row
        async with self._changing:  # it may be begun or cancelled just now
            return await self._find_settled(account, job_id)

    async def _find_settled(self, account: str, job_id: str) -> JobRow:
        """As `_find`, while no job is begun or cancelled."""
        row = await self._store.find(account, job_id)
        if row is not None and self._is_lost(row):
            await self._give_up(job_id, "what came of it could not be kept; ask again")
            row = await self._store.find(account, job_id)
        if row is None:
            raise UnknownJobError(
                "you have no job with this id: it was removed, or is another's; ask again"
            )
        return row

    def _is_lost(self, row: JobRow) -> bool:
        is_here = row.id in self._runs
        return not (row.status.has_ended or is_here or self._runs_elsewhere(row))

    def _runs_elsewhere(self, row: JobRow) -> bool:
        is_own = row.gateway == self._siblings.name
        return not (row.status.has_ended or is_own) and self._siblings.lives(row.gateway)

    async def _find_same(self, new: NewJob) -> JobRow | None:
        known = None
        if new.key is not None:
            known = await self._store.find_key(new.caller.account, new.key)
        if known is not None and known.body_sha256 != new.body_sha256:
            raise KeyReusedError(
                "this Idempotency-Key came with another body before; send the same body, or a new "
                "key for a new question"
            )
        return known

    async def _check_waiting(self, new: NewJob) -> None:
        """Raise RateLimitedError if the caller has enough waiting."""
        rows = await self._store.list_unfinished()
        own = [row for row in rows if row.account == new.caller.account and not self._is_lost(row)]
        num_unfinished = sum(row.is_background for row in own)
        most = self.limits.at_once + self.limits.waiting
        if new.is_background and num_unfinished >= most:
            raise RateLimitedError(
                f"you have {num_unfinished} background queries running or waiting, {most} are "
                f"allowed; wait for one to end, or cancel one"
            )

    async def _make_room(self, caller: Caller) -> None:
        """Remove the caller's oldest job that has ended, if no more may be kept."""
        own, of_all = await self._store.count(caller.account)
        if own < self.limits.most_of_caller and of_all < self.limits.most:
            return
        oldest = await self._store.find_oldest_ended(caller.account)
        if oldest is not None:
            await self._store.delete(oldest.id)
        elif own >= self.limits.most_of_caller:
            raise RateLimitedError(f"you have {own} jobs that have not ended; wait for one to end")
        else:
            raise NodeBusyError(
                f"the gateway keeps {of_all} jobs, its limit; try again later, or raise "
                f"FEDATTN_GATEWAY_MAX_JOBS"
            )

    def _start(self, row: JobRow, ask: Ask) -> None:
        run = JobRun(row, ask, self._store, self._clock)
        self._runs[row.id] = run

        def forget(_task: asyncio.Task[None]) -> None:
            del self._runs[row.id]
            run.note_change()

        run.task.add_done_callback(forget)

    async def _sweep(self) -> None:
        while True:
            try:
                await self._store.expire(self._clock() - self.limits.retention_s)
                async with self._changing:
                    await self._give_up_unfinished()
            except JobsUnavailableError as error:
                log.warning("jobs_not_swept", error=str(error))
            await asyncio.sleep(min(_SWEEP_EVERY_S, self.limits.retention_s))

    async def _stop(self) -> None:
        """Let jobs that run end within the grace; all others are lost."""
        runs = tuple(self._runs.values())
        await asyncio.gather(*(run.cancel() for run in runs if not run.has_begun))
        if self._runs:
            running = [run.task for run in self._runs.values()]
            await asyncio.wait(running, timeout=self.limits.grace_s)
        await asyncio.gather(*(run.cancel() for run in runs))
        await self._give_up_unfinished()

    async def _give_up_unfinished(self) -> None:
        """Say of all that they are lost; what cannot be written is noticed by who looks."""
        try:
            for row in await self._store.list_unfinished():
                if self._is_lost(row):
                    await self._give_up(row.id, _STOPPED)
        except JobsUnavailableError as error:
            log.error("jobs_not_kept", error=str(error))  # noqa: TRY400 - known

    async def _give_up(self, job_id: str, reason: str) -> None:
        event = event_of(problem_of(JobLostError(reason)))
        await self._store.finish(job_id, JobStatus.LOST, event, self._clock())
