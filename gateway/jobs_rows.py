"""Jobs and events as they are kept."""

from dataclasses import dataclass

from fedattn.rest.jobs import JobStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job as it is kept; times in seconds since the epoch.

    Attributes:
        id: names it, and cannot be guessed.
        account: whose it is, as `Caller.account`.
        status: how far it has come.
        is_background: whether nobody waits for it.
        question: what was asked; None once cancelled.
        key: the idempotency key it was asked with; None without one, and once it has failed.
        body_sha256: of the request's body, to hold later ones with the same key against.
        created: when it was asked.
        started: when its session opened.
        ended: when it ended.
        gateway: that runs it, as it calls itself among others; empty for the only one.
    """

    id: str
    account: str
    status: JobStatus = JobStatus.QUEUED
    is_background: bool
    question: str | None
    key: str | None = None
    body_sha256: bytes | None = None
    created: float
    started: float | None = None
    ended: float | None = None
    gateway: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """What happened in a job.

    Attributes:
        number: its place among the job's events, from 1; 0 for one that is not kept.
        name: as server-sent events name it.
        data: a JSON document.
    """

    number: int = 0
    name: str
    data: str

    @property
    def is_last(self) -> bool:
        """Whether it is the job's answer or problem."""
        return self.name in {"report", "error"}
