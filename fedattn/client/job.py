"""A query that the gateway works on in the background."""

from collections.abc import Callable, Generator
from contextlib import closing
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
Stream: TypeAlias = Callable[[Call], Generator[tuple[str, QueryEvent], None, None]]


class Fetch(Protocol):
    """Sends a call, and reads what is answered."""

    def __call__(self, call: Call, read: Callable[[bytes], T]) -> T: ...


class Job:
    """One job at a gateway; made by `Client.submit` and `Client.job`.

    Args:
        summary: what the gateway said of it last.
        fetch: sends a call.
        stream: sends a call that is answered with events.
        retries: times in a row that a broken stream is taken up again without a new event.
    """

    def __init__(self, summary: JobSummary, *, fetch: Fetch, stream: Stream, retries: int) -> None:
        self.summary = summary
        self._fetch = fetch
        self._stream = stream
        self._retries = retries

    @property
    def id(self) -> str:
        """Names it at its gateway, also after this process."""
        return self.summary.id

    def refresh(self) -> JobRecord:
        """How far it has come now, with its answer or problem if it has ended."""
        record = self._fetch(calls.read_job(self.id), JobRecord.model_validate_json)
        self.summary = record
        return record

    def events(self) -> Generator[QueryEvent, None, None]:
        """Yield what happened in it and what happens, once each; the last is the answer.

        Raises:
            FedAttnError: why there is no answer.
        """
        last_id, failures = "", 0
        while True:
            try:
                with closing(self._stream(calls.read_events(self.id, last_id))) as events:
                    for event_id, event in events:
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

    def wait(self) -> QueryAnswer:
        """Wait for the answer.

        Raises:
            FedAttnError: why there is none.
        """
        with closing(self.events()) as events:
            for event in events:
                if isinstance(event, QueryAnswer):
                    return event
        raise no_report()

    def cancel(self) -> None:
        """End it if it runs; if it has ended, remove it from the gateway with all its texts."""
        self._fetch(calls.cancel_job(self.id), bytes)
