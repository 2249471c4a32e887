"""A client of a gateway for asyncio."""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx
from httpx_sse import aconnect_sse

from fedattn.client import calls
from fedattn.client.async_job import AsyncJob
from fedattn.client.calls import Call
from fedattn.client.connection import Connection
from fedattn.client.options import QueryOptions, SessionOptions, query_of, session_of
from fedattn.client.reading import no_report, read_answer, read_event, read_participants
from fedattn.client.retrying import DEFAULT_RETRIES, AsyncRetryingTransport
from fedattn.rest.answers import QueryAnswer, WarmAnswer
from fedattn.rest.events import QueryEvent
from fedattn.rest.jobs import Job as JobRecord
from fedattn.rest.jobs import JobPage, JobSummary
from fedattn.rest.participants import ParticipantInfo
from fedattn.rest.query import QueryBody
from fedattn.rest.session import SessionBody

T = TypeVar("T")


class AsyncClient:
    """As `Client`, for asyncio: use it in `async with`; cancelling a call ends its query.

    Args:
        gateway: as `Client`.
        api_key: as `Client`.
        ca: as `Client`.
        retries: as `Client`.
        transport: as `Client`.

    Raises:
        ConfigurationError: as `Client`.
    """

    def __init__(
        self,
        gateway: str | None = None,
        api_key: str | None = None,
        *,
        ca: str | os.PathLike[str] | None = None,
        retries: int = DEFAULT_RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._connection = there = Connection.find(gateway, api_key, ca, os.environ)
        self._retries = retries
        inner = transport or httpx.AsyncHTTPTransport(**there.arguments)
        self._http = httpx.AsyncClient(
            base_url=there.url,
            headers=there.headers,
            transport=AsyncRetryingTransport(inner, retries),
            trust_env=False,
        )

    @property
    def url(self) -> str:
        """Of the gateway."""
        return self._connection.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def ask(self, question: str | QueryBody, **options: Unpack[QueryOptions]) -> QueryAnswer:
        """As `Client.ask`."""
        async with aclosing(self.stream(question, **options)) as events:
            async for event in events:
                if isinstance(event, QueryAnswer):
                    return event
        raise no_report()

    async def stream(
        self, question: str | QueryBody, **options: Unpack[QueryOptions]
    ) -> AsyncGenerator[QueryEvent, None]:
        """As `Client.stream`."""
        call = calls.stream_query(query_of(question, options))
        async with aclosing(self._events(call)) as events:
            async for _, event in events:
                yield event

    async def submit(
        self,
        question: str | QueryBody,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[QueryOptions],
    ) -> AsyncJob:
        """As `Client.submit`."""
        call = calls.submit_query(query_of(question, options), idempotency_key)
        return self._job(await self._fetch(call, JobSummary.model_validate_json))

    async def job(self, job_id: str) -> AsyncJob:
        """As `Client.job`."""
        return self._job(await self._fetch(calls.read_job(job_id), JobRecord.model_validate_json))

    async def jobs(self) -> AsyncIterator[JobSummary]:
        """As `Client.jobs`."""
        before: str | None = None
        while True:
            page = await self._fetch(calls.list_jobs(before), JobPage.model_validate_json)
            for summary in page.jobs:
                yield summary
            before = page.next
            if before is None:
                return

    async def warm(
        self, body: SessionBody | None = None, **options: Unpack[SessionOptions]
    ) -> WarmAnswer:
        """As `Client.warm`."""
        call = calls.warm(session_of(body, options))
        return await self._fetch(call, WarmAnswer.model_validate_json)

    async def participants(self) -> list[ParticipantInfo]:
        """As `Client.participants`."""
        return await self._fetch(calls.PARTICIPANTS, read_participants)

    def _job(self, summary: JobSummary) -> AsyncJob:
        return AsyncJob(summary, fetch=self._fetch, stream=self._events, retries=self._retries)

    async def _fetch(self, call: Call, read: Callable[[bytes], T]) -> T:
        with self._connection.reaching():
            response = await self._http.request(**call.arguments)
        return read_answer(response, read)

    async def _events(self, call: Call) -> AsyncGenerator[tuple[str, QueryEvent], None]:
        """Events with their ids, which are empty but for a job."""
        with self._connection.reaching():
            async with aconnect_sse(self._http, **call.arguments) as source:
                if not source.response.is_success:
                    await source.response.aread()
                    read_answer(source.response, bytes)
                async for sent in source.aiter_sse():
                    event = read_event(source.response, sent)
                    if event is not None:
                        yield sent.id, event
