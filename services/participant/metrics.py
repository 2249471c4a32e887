"""What a participant tells Prometheus, where somebody can scrape it."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge

from fedattn.core.errors import FedAttnError, InternalError
from fedattn.runtime.metrics import new_registry


class ParticipantMetrics:
    """Counters and gauges of one participant."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or new_registry("participant")
        self.joined = Gauge("fedattn_joined", "1 while it is joined, else 0.", registry=registry)
        self._running = Gauge(
            "fedattn_sessions_running", "Sessions it takes part in now.", registry=registry
        )
        self._sessions = Counter(
            "fedattn_participant_sessions",
            "Sessions it took part in, by role and outcome (complete or an error code).",
            ["role", "outcome"],
            registry=registry,
        )
        self.compute_seconds = Counter(
            "fedattn_compute_seconds", "Time its model computed prompts.", registry=registry
        )
        self.wait_seconds = Counter(
            "fedattn_wait_seconds", "Time its model waited for rows of others.", registry=registry
        )
        self.tokens = Counter(
            "fedattn_tokens_decoded", "Answer tokens it decoded.", registry=registry
        )

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
