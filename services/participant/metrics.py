"""What a participant tells Prometheus, where somebody can scrape it."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fedattn.core.errors import FedAttnError, InternalError
from fedattn.runtime.metrics import SECONDS, TOKEN_SECONDS, new_registry

ANSWERS = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)
"""Buckets of the answers in one decoding step."""


class ParticipantMetrics:
    """Counters and gauges of one participant."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or new_registry("participant")
        self.joined = Gauge(
            "fedattn_participant_joined", "1 while it is joined, else 0.", registry=registry
        )
        self._running = Gauge(
            "fedattn_participant_sessions_running",
            "Sessions it takes part in now.",
            registry=registry,
        )
        self._sessions = Counter(
            "fedattn_participant_sessions",
            "Sessions it took part in, by role and outcome (complete or an error code).",
            ["role", "outcome"],
            registry=registry,
        )
        self.compute_seconds = Counter(
            "fedattn_participant_compute_seconds",
            "Time its model computed prompts.",
            registry=registry,
        )
        waits = Histogram(
            "fedattn_participant_wait_seconds",
            "Waits in a session, by cause: a publisher for its session to open, a model for rows "
            "of others, a model for room to send its own.",
            ["cause"],
            buckets=SECONDS,
            registry=registry,
        )
        self.open_waits = waits.labels("open")
        self._row_waits, self._room_waits = waits.labels("rows"), waits.labels("room")
        self.first_token = Histogram(
            "fedattn_participant_time_to_first_token_seconds",
            "From a query's arrival to the first token of its answer.",
            buckets=SECONDS,
            registry=registry,
        )
        self.between_tokens = Histogram(
            "fedattn_participant_time_between_tokens_seconds",
            "From one token of an answer to the next.",
            buckets=TOKEN_SECONDS,
            registry=registry,
        )
        self.answers_a_step = Histogram(
            "fedattn_participant_decode_step_answers",
            "Answers that a decoding step went on with together.",
            buckets=ANSWERS,
            registry=registry,
        )
        self.tokens = Counter(
            "fedattn_participant_output_tokens", "Answer tokens it decoded.", registry=registry
        )

    def prefilled(self, compute_s: float, *, row_wait_s: float, room_wait_s: float) -> None:
        """Its model has done its part of a session.

        Args:
            compute_s: seconds without the waits.
            row_wait_s: seconds it waited for rows of others.
            room_wait_s: seconds it waited for its own rows to leave.
        """
        self.compute_seconds.inc(compute_s)
        self._row_waits.observe(row_wait_s)
        self._room_waits.observe(room_wait_s)

    @contextmanager
    def session(self, role: str) -> Iterator[None]:
        """Count what the block does as one session."""
        outcome = "cancelled"
        try:
            with self._running.track_inprogress():
                yield
            outcome = "complete"
        except FedAttnError as error:
            outcome = error.code
            raise
        except Exception:  # border: counted as what it is, and passed on
            outcome = InternalError.code
            raise
        finally:
            self._sessions.labels(role, outcome).inc()
