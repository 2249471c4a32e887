"""A client of a gateway."""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx
from httpx_sse import connect_sse

from fedattn.client import calls
from fedattn.client.calls import Call
from fedattn.client.connection import Connection
from fedattn.client.job import Job
from fedattn.client.options import QueryOptions, SessionOptions, query_of, session_of
from fedattn.client.reading import no_report, read_answer, read_event, read_participants
from fedattn.client.retrying import DEFAULT_RETRIES, RetryingTransport
from fedattn.core.proxies import Endpoint
from fedattn.rest.answers import QueryAnswer, WarmAnswer
from fedattn.rest.events import QueryEvent
from fedattn.rest.jobs import Job as JobRecord
from fedattn.rest.jobs import JobPage, JobSummary
from fedattn.rest.participants import ParticipantInfo
from fedattn.rest.query import QueryBody
from fedattn.rest.session import SessionBody

T = TypeVar("T")


class Client:
    """Asks one gateway; threads may share it. Close it, or use it in `with`.

    Every call raises the gateway's problem as the error of its code, and GatewayUnavailableError
    if the gateway cannot be reached.

    Args:
        gateway: HOST:PORT or a URL; default: FEDATTN_GATEWAY, else the loopback's port 8000.
        api_key: who asks: an API key, or a token of the gateway's issuer; default:
            FEDATTN_API_KEY, else nobody.
        ca: PEM file that vouches for an https gateway; default: those this machine trusts.
        retries: most times that a request is sent again, after the time that the gateway asks
            for, if it was refused for now (429, 503) or nobody was there.
        transport: what sends requests instead of the network, such as a gateway in a test.

    Raises:
        ConfigurationError: it is no URL of a gateway, or a key, file or proxy is of no use.
    """

    def __init__(
        self,
        gateway: str | None = None,
        api_key: str | None = None,
        *,
        ca: str | os.PathLike[str] | None = None,
        retries: int = DEFAULT_RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._connection = there = Connection.find(gateway, api_key, ca, os.environ)
        self._retries = retries
        inner = transport or httpx.HTTPTransport(**there.arguments)
        self._http = httpx.Client(
            base_url=there.url,
            headers=there.headers,
            transport=RetryingTransport(inner, retries),
            trust_env=False,
        )

    @property
    def url(self) -> str:
        """Of the gateway."""
        return self._connection.url

    @property
    def endpoint(self) -> Endpoint:
        """Where the gateway is, and how it is reached."""
        return self._connection.endpoint

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def ask(self, question: str | QueryBody, **options: Unpack[QueryOptions]) -> QueryAnswer:
        """Ask, and wait for the answer.

        Args:
            question: what you want to know, or a whole query.
            options: fields of `QueryBody`, in place of the query's.
        """
        with closing(self.stream(question, **options)) as events:
            for event in events:
                if isinstance(event, QueryAnswer):
                    return event
        raise no_report()

    def stream(
        self, question: str | QueryBody, **options: Unpack[QueryOptions]
    ) -> Generator[QueryEvent, None, None]:
        """Ask, as `ask`, and yield events as the gateway sends them; the last is the answer."""
        call = calls.stream_query(query_of(question, options))
        with closing(self._events(call)) as events:
            for _, event in events:
                yield event

    def submit(
        self,
        question: str | QueryBody,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[QueryOptions],
    ) -> Job:
        """Ask, as `ask`, in the background: the gateway keeps the job, whoever waits for it.

        Args:
            question: as `ask`.
            idempotency_key: a second call with the same key makes no second job; default: a new
                one, so that only a repetition of this call's own request makes none.
            options: as `ask`.
        """
        call = calls.submit_query(query_of(question, options), idempotency_key)
        return self._job(self._fetch(call, JobSummary.model_validate_json))

    def job(self, job_id: str) -> Job:
        """A job that was submitted before."""
        return self._job(self._fetch(calls.read_job(job_id), JobRecord.model_validate_json))

    def jobs(self) -> Iterator[JobSummary]:
        """The caller's jobs, the newest first; a gateway without sign-in tells of none."""
        before: str | None = None
        while True:
            page = self._fetch(calls.list_jobs(before), JobPage.model_validate_json)
            yield from page.jobs
            before = page.next
            if before is None:
                return

    def warm(
        self, body: SessionBody | None = None, **options: Unpack[SessionOptions]
    ) -> WarmAnswer:
        """Let the publisher fetch rows ahead of any question.

        Args:
            body: a whole session; default: as the options say.
            options: fields of `SessionBody`, in place of the session's.
        """
        call = calls.warm(session_of(body, options))
        return self._fetch(call, WarmAnswer.model_validate_json)

    def participants(self) -> list[ParticipantInfo]:
        """Who is joined now."""
        return self._fetch(calls.PARTICIPANTS, read_participants)

    def date(self) -> str:
        """The gateway's clock, as HTTP tells it (RFC 9110, 6.6.1); empty if it does not."""
        with self._connection.reaching():
            return str(self._http.request(**calls.HEALTH.arguments).headers.get("Date", ""))

    def _job(self, summary: JobSummary) -> Job:
        return Job(summary, fetch=self._fetch, stream=self._events, retries=self._retries)

    def _fetch(self, call: Call, read: Callable[[bytes], T]) -> T:
        with self._connection.reaching():
            response = self._http.request(**call.arguments)
        return read_answer(response, read)

    def _events(self, call: Call) -> Generator[tuple[str, QueryEvent], None, None]:
        """Events with their ids, which are empty but for a job."""
        with (
            self._connection.reaching(),
            connect_sse(self._http, **call.arguments) as source,
        ):
            if not source.response.is_success:
                source.response.read()
                read_answer(source.response, bytes)
            for sent in source.iter_sse():
                event = read_event(source.response, sent)
                if event is not None:
                    yield sent.id, event
