"""What is sent to a gateway for each call, the same whoever waits for it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from fedattn.client.retrying import DEADLINE
from fedattn.rest.query import QueryBody
from fedattn.rest.session import SessionBody

CONNECT_TIMEOUT_S = 10.0
_MARGIN_S = 30.0
"""The gateway ends a query at its deadline and says why; this is its time to say it."""
_SHORT_S = 15.0
_QUIET_S = 60.0
"""Longest silence on a job's stream, on which the gateway says every few seconds that it lives."""
_QUERIES = "/v1/queries"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request.

    Attributes:
        method: of HTTP.
        path: below the gateway's URL.
        document: its body, as JSON; None for none.
        headers: besides those that say who asks.
        query: of the URL.
        silence_s: longest time without a byte from the gateway, seconds.
        deadline_s: of all tries and the pauses between them, as its document says; None for none.
    """

    method: str
    path: str
    document: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    silence_s: float = _SHORT_S
    deadline_s: float | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Of httpx's functions that send a request."""
        return {
            "method": self.method,
            "url": self.path,
            "json": self.document,
            "headers": self.headers,
            "params": self.query,
            "timeout": httpx.Timeout(self.silence_s, connect=CONNECT_TIMEOUT_S),
            "extensions": {} if self.deadline_s is None else {DEADLINE: self.deadline_s},
        }


HEALTH = Call(method="GET", path="/healthz")
PARTICIPANTS = Call(method="GET", path="/v1/participants")


def stream_query(body: QueryBody) -> Call:
    """Ask, and be told by events."""
    document = body.model_copy(update={"stream": True}).model_dump(mode="json")
    return _within(body.deadline_s, _QUERIES, document)


def warm(body: SessionBody) -> Call:
    """Let the publisher fetch rows."""
    return _within(body.deadline_s, "/v1/warm", body.model_dump(mode="json"))


def _within(deadline_s: float, path: str, document: Any) -> Call:
    """A call whose document says until when somebody waits for its end."""
    return Call(
        method="POST",
        path=path,
        document=document,
        silence_s=deadline_s + _MARGIN_S,
        deadline_s=deadline_s,
    )


def submit_query(body: QueryBody, idempotency_key: str | None) -> Call:
    """Ask in the background; the same key, new unless given, never makes a second job."""
    document = body.model_dump(mode="json") | {"stream": False, "background": True}
    headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
    return Call(method="POST", path=_QUERIES, document=document, headers=headers)


def read_job(job_id: str) -> Call:
    """How far a job has come."""
    return Call(method="GET", path=_path_of(job_id))


def read_events(job_id: str, last_event_id: str) -> Call:
    """What happened in a job after an event; from the first if its id is empty."""
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    path = f"{_path_of(job_id)}/events"
    return Call(method="GET", path=path, headers=headers, silence_s=_QUIET_S)


def cancel_job(job_id: str) -> Call:
    """End a job, or remove it if it has ended."""
    return Call(method="DELETE", path=_path_of(job_id))


def list_jobs(before: str | None) -> Call:
    """A page of jobs: those older than a job, or the newest."""
    return Call(method="GET", path=_QUERIES, query={} if before is None else {"before": before})


def _path_of(job_id: str) -> str:
    return f"{_QUERIES}/{quote(job_id, safe='')}"
