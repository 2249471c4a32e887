"""A query that the gateway works on in the background, for asyncio."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol, TypeAlias, TypeVar

from fedattn.client import calls
from fedattn.client.calls import Call
from fedattn.client.reading import no_report
from fedattn.core.errors import GatewayUnavailableError
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.events import QueryEvent
from fedattn.rest.jobs import Job as JobRecord
from fedattn.rest.jobs import JobSummary

T = TypeVar("T")
AsyncStream: TypeAlias = Callable[[Call], AsyncGenerator[tuple[str, QueryEvent], None]]


class AsyncFetch(Protocol):
    """Sends a call, and reads what is answered."""

    async def __call__(self, call: Call, read: Callable[[bytes], T]) -> T: ...


class AsyncJob:
    """As `Job`, for asyncio.

    Args:
        summary: as `Job`.
        fetch: as `Job`.
        stream: as `Job`.
        retries: as `Job`.
    """

    def __init__(
        self, summary: JobSummary, *, fetch: AsyncFetch, stream: AsyncStream, retries: int
    ) -> None:
        self.summary = summary
        self._fetch = fetch
        self._stream = stream
        self._retries = retries

    @property
    def id(self) -> str:
        """As `Job.id`."""
        return self.summary.id

    async def refresh(self) -> JobRecord:
        """As `Job.refresh`."""
        record = await self._fetch(calls.read_job(self.id), JobRecord.model_validate_json)
        self.summary = record
        return record

    async def events(self) -> AsyncGenerator[QueryEvent, None]:
        """As `Job.events`."""
        last_id, failures = "", 0
        while True:
            try:
                async with aclosing(self._stream(calls.read_events(self.id, last_id))) as events:
                    async for event_id, event in events:
                        last_id, failures = event_id or last_id, 0  # not all have one
                        yield event
                        if isinstance(event, QueryAnswer):
                            return
            except GatewayUnavailableError:
                if failures >= self._retries:
                    raise
            if failures >= self._retries:
                raise no_report()
            failures += 1

    async def wait(self) -> QueryAnswer:
        """As `Job.wait`."""
        async with aclosing(self.events()) as events:
            async for event in events:
                if isinstance(event, QueryAnswer):
                    return event
        raise no_report()

    async def cancel(self) -> None:
        """As `Job.cancel`."""
        await self._fetch(calls.cancel_job(self.id), bytes)
