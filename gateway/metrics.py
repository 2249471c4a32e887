"""What the gateway tells Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fedattn.wire.v1 import participant_pb2

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class GatewayMetrics:
    """Counters and histograms of one gateway."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.running = Gauge(
            "fedattn_queries_running", "Queries and fetches ahead that run now.", registry=registry
        )
        self._queries = Counter(
            "fedattn_queries",
            "Queries by outcome: answered, cancelled, or an error code.",
            ["outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "fedattn_query_seconds",
            "Time of an answered query.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._first_token = Histogram(
            "fedattn_first_token_seconds",
            "Time to the first answer token, by the publisher's clock.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._tokens = Counter("fedattn_tokens_answered", "Answer tokens.", registry=registry)

    def end(self, outcome: str) -> None:
        """A query ended without an answer."""
        self._queries.labels(outcome).inc()

    def answer(self, result: participant_pb2.QueryResult, seconds: float) -> None:
        """A query was answered."""
        self._queries.labels("answered").inc()
        self._seconds.observe(seconds)
        self._first_token.observe(result.time_to_first_token_s)
        self._tokens.inc(result.num_tokens)
