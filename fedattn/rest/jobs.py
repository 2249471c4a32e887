"""Queries that the gateway keeps: those asked in the background, or with an idempotency key."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, Field

from fedattn.rest.answers import QueryAnswer
from fedattn.rest.events import QueuedEvent
from fedattn.rest.problems import Problem

MAX_PAGE = 100
_ID = "b3c1f0f27a5e4f6f9d0f6f4a1f2e3d4c"


class JobStatus(StrEnum):
    """How far a job has come."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen."""
        return self not in {JobStatus.QUEUED, JobStatus.RUNNING}


class JobSummary(BaseModel):
    """A query that the gateway keeps."""

    id: str = Field(description="Id of the job.", examples=[_ID])
    status: JobStatus = Field(
        description="queued: waits for its turn or a place; running; done: it has an answer; "
        "failed: it has a problem; cancelled: on request, and nothing of it is kept; lost: the "
        "gateway was stopped before it ended.",
        examples=["done"],
    )
    queued: QueuedEvent | None = Field(
        None,
        description="Where it stands among those that wait for a place; null if it does not wait.",
    )
    background: bool = Field(
        description="Whether it was asked in the background; else with an idempotency key.",
        examples=[True],
    )
    question: str | None = Field(
        description="What was asked; null once cancelled.",
        examples=["Which machine reported the highest temperature?"],
    )
    created: datetime = Field(
        description="When it was asked, UTC.", examples=["2026-03-01T12:00:00Z"]
    )
    started: datetime | None = Field(
        description="When its session opened; null before.", examples=["2026-03-01T12:00:01Z"]
    )
    ended: datetime | None = Field(
        description="When it ended; null before.", examples=["2026-03-01T12:00:09Z"]
    )
    expires: datetime | None = Field(
        description="When the gateway removes it; null before it ends.",
        examples=["2026-03-02T12:00:09Z"],
    )


class Job(JobSummary):
    """A query that the gateway keeps, and what came of it."""

    answer: QueryAnswer | None = Field(description="The answer; null unless done.")
    problem: Problem | None = Field(
        description="Why there is no answer; null if there is one, or may still be."
    )


class JobPage(BaseModel):
    """Some of a caller's jobs, the newest first."""

    jobs: list[JobSummary] = Field(description="The jobs of this page.")
    next: str | None = Field(
        description="Give it as `before` for the next page; null on the last.", examples=[_ID]
    )
