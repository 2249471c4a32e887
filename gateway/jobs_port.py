"""Where jobs are kept, and who else keeps them there."""

from types import TracebackType
from typing import Protocol, Self

from fedattn.rest.jobs import JobStatus
from gateway.jobs_rows import JobEvent, JobRow


class TakenKeyError(Exception):
    """Another job has the idempotency key since a moment; who submits looks again."""


class JobStore(Protocol):
    """Keeps jobs; open inside `async with`.

    Every method raises JobsUnavailableError if what it needs is out of reach.
    """

    async def __aenter__(self) -> Self:
        """Open it."""

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Close it, once what is being written is written."""

    async def add(self, job: JobRow) -> None:
        """Keep a new job; raises TakenKeyError if another one has its idempotency key."""

    async def start(self, job_id: str, now: float) -> None:
        """Note that a job's session is open."""

    async def append(self, job_id: str, event: JobEvent) -> None:
        """Keep what happened next in a job."""

    async def finish(self, job_id: str, status: JobStatus, event: JobEvent, now: float) -> None:
        """Keep how a job ended. Only an answer stays under its idempotency key."""

    async def cancel(self, job_id: str, event: JobEvent, now: float) -> None:
        """End a job, and remove whatever was asked and answered."""

    async def delete(self, job_id: str) -> None:
        """Remove a job and all its texts."""

    async def expire(self, before: float) -> None:
        """Remove all jobs that ended before a time."""

    async def find(self, account: str, job_id: str) -> JobRow | None:
        """An account's job."""

    async def find_key(self, account: str, key: str) -> JobRow | None:
        """An account's job with an idempotency key."""

    async def find_oldest_ended(self, account: str) -> JobRow | None:
        """The account's job that gives way first to a new one."""

    async def page(self, account: str, before: str | None, limit: int) -> list[JobRow]:
        """An account's jobs, the newest first: those older than the job `before`."""

    async def list_unfinished(self) -> list[JobRow]:
        """Everybody's jobs that have not ended."""

    async def count(self, account: str) -> tuple[int, int]:
        """Jobs of an account, and of all."""

    async def events(self, job_id: str, after: int) -> list[JobEvent]:
        """What happened in a job after the event with a number."""

    async def last_event(self, job_id: str) -> JobEvent | None:
        """The answer or the problem of a job that has ended."""


class Siblings(Protocol):
    """The gateways that keep their jobs in the same store.

    Attributes:
        name: of this one, which its jobs bear.
    """

    name: str

    def lives(self, gateway: str) -> bool:
        """Whether another gateway runs, and so its jobs."""

    async def request_cancel(self, gateway: str, account: str, job_id: str) -> None:
        """Have a job cancelled where it runs; raises JobsUnavailableError if it is not."""


class Alone:
    """No other gateway keeps jobs there."""

    name = ""

    def lives(self, gateway: str) -> bool:  # noqa: ARG002 - nobody does
        """Nobody."""
        return False

    async def request_cancel(self, gateway: str, account: str, job_id: str) -> None:
        """Never called."""
        raise AssertionError(f"no gateway {gateway} runs job {job_id} of {account}")
