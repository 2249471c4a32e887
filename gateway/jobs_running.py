"""Running one job: its query, and what is kept of it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import TypeAlias

import structlog

from fedattn.core.errors import JobsUnavailableError
from fedattn.rest.events import QueryEvent, QueuedEvent
from fedattn.rest.jobs import JobStatus
from fedattn.rest.problems import Problem
from gateway.attempts import Attempts
from gateway.events import written_event
from gateway.jobs_port import JobStore
from gateway.jobs_rows import JobEvent, JobRow
from gateway.problems import problem_of

MAX_EVENT_BYTES = 1 << 20
"""Of one job; later layers and tokens are not kept, but the answer is."""

Ask: TypeAlias = Callable[[], Awaitable[Attempts]]
"""Puts a query into the line."""

log = structlog.get_logger(__name__)


def event_of(event: QueryEvent | Problem) -> JobEvent:
    """What happened, as it is kept: as `POST /v1/queries` streams it."""
    encoded = written_event(event)
    return JobEvent(name=str(encoded.event), data=str(encoded.data))


class JobRun:
    """A job that has not ended; runs as soon as it is made.

    Args:
        row: the job, as it is kept already.
        ask: puts its query into the line.
        store: keeps what happens.
        clock: seconds since the epoch.

    Attributes:
        task: ends with the job.
        changed: set at the next change, and then another.
        has_begun: whether its query runs.
    """

    def __init__(self, row: JobRow, ask: Ask, store: JobStore, clock: Callable[[], float]) -> None:
        self.row = row
        self.changed = asyncio.Event()
        self.has_begun = False
        self._ask = ask
        self._store = store
        self._clock = clock
        self._num_bytes = 0
        self._query: Attempts | None = None
        self.task = asyncio.create_task(self._run())

    @property
    def queued(self) -> QueuedEvent | None:
        """Where it stands in the line, if it waits."""
        return None if self._query is None else self._query.queued

    def note_change(self) -> None:
        """Wake whoever follows the job."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def cancel(self) -> None:
        """End it, and wait until nothing more is kept of it."""
        self.task.cancel()
        await asyncio.wait([self.task])

    async def _run(self) -> None:
        try:
            await self._answer()
        except JobsUnavailableError as error:
            log.error("job_not_kept", job=self.row.id, error=str(error))  # noqa: TRY400 - known
        except Exception as error:  # border: nobody else sees what a job ends with
            await self._fail(error)

    async def _fail(self, error: Exception) -> None:
        event = event_of(problem_of(error))
        try:
            await self._store.finish(self.row.id, JobStatus.FAILED, event, self._clock())
        except JobsUnavailableError as unkept:
            log.error("job_not_kept", job=self.row.id, error=str(unkept))  # noqa: TRY400 - known

    async def _answer(self) -> None:
        with closing(await self._ask()) as self._query:
            async for event in self._query.events():
                if isinstance(event, QueuedEvent):
                    self.note_change()
                    continue
                if not self.has_begun:
                    self.has_begun = True
                    await self._store.start(self.row.id, self._clock())
                await self._keep(event_of(event))

    async def _keep(self, event: JobEvent) -> None:
        if event.is_last:
            await self._store.finish(self.row.id, JobStatus.DONE, event, self._clock())
        else:
            self._num_bytes += len(event.data.encode())
            if self._num_bytes > MAX_EVENT_BYTES:
                return
            await self._store.append(self.row.id, event)
        self.note_change()
