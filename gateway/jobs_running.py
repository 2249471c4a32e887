"""Running one job: its turn, its query, and what is kept of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from typing import TypeAlias
from weakref import WeakValueDictionary

import structlog

from fedattn.core.errors import FedAttnError, JobsUnavailableError, NodeBusyError, RateLimitedError
from fedattn.rest.answers import QueryEvent
from fedattn.rest.jobs import JobStatus
from fedattn.rest.problems import Problem
from gateway.attempts import Attempts
from gateway.events import written_event
from gateway.jobs_rows import JobEvent, JobRow
from gateway.jobs_store import JobStore
from gateway.problems import RETRY_AFTER_S, problem_of

MAX_EVENT_BYTES = 1 << 20
"""Of one job; later layers and tokens are not kept, but the answer is."""
MAX_WAIT_S = 3600.0
"""Longest wait for a place, once it is a job's turn."""

Ask: TypeAlias = Callable[[], Awaitable[Attempts]]
"""Sends a query to its publisher."""

log = structlog.get_logger(__name__)


def event_of(event: QueryEvent | Problem) -> JobEvent:
    """What happened, as it is kept: as `POST /v1/queries` streams it."""
    encoded = written_event(event)
    return JobEvent(name=str(encoded.event), data=str(encoded.data))


class JobTurns:
    """Lets some background jobs of each caller run, in the order they came."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def wait(self, row: JobRow) -> AsyncIterator[None]:
        """Have a turn; at once for a job that somebody waits for."""
        if not row.is_background:
            yield
            return
        turns = self._turns.setdefault(row.account, asyncio.Semaphore(self._at_once))
        async with turns:
            yield


class JobRun:
    """A job that has not ended; runs as soon as it is made.

    Args:
        row: the job, as it is kept already.
        ask: sends its query; for a background job again, while there is no place for it.
        store: keeps what happens.
        turns: of background jobs.
        clock: seconds since the epoch.

    Attributes:
        task: ends with the job.
        changed: set at the next change, and then another.
        has_begun: whether its query runs.
    """

    def __init__(
        self,
        row: JobRow,
        ask: Ask,
        store: JobStore,
        turns: JobTurns,
        clock: Callable[[], float],
    ) -> None:
        self.row = row
        self.changed = asyncio.Event()
        self.has_begun = False
        self._ask = ask
        self._store = store
        self._turns = turns
        self._clock = clock
        self._num_bytes = 0
        self.task = asyncio.create_task(self._run())

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
            async with self._turns.wait(self.row):
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
        """Ask until there is a place, as long as that is worth it."""
        give_up_at = self._clock() + MAX_WAIT_S
        while True:
            try:
                return await self._ask_once()
            except (NodeBusyError, RateLimitedError) as error:
                pause_s = _pause_after(error)
                is_over = self._clock() + pause_s > give_up_at
                if is_over or self.has_begun or not self.row.is_background:
                    raise
            await asyncio.sleep(pause_s)

    async def _ask_once(self) -> None:
        with closing(await self._ask()) as call:
            await call.wait_started()
            self.has_begun = True
            await self._store.start(self.row.id, self._clock())
            async for event in call.events():
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


def _pause_after(error: FedAttnError) -> float:
    if isinstance(error, RateLimitedError):
        return max(1.0, error.retry_after_s)
    return float(RETRY_AFTER_S)
