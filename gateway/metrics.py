"""What the gateway tells Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fedattn.core.sampling import MAX_NEW_TOKENS
from fedattn.runtime.metrics import SECONDS, TOKEN_SECONDS
from fedattn.wire.timeline import MAX_TIME_S
from fedattn.wire.v1 import participant_pb2


class GatewayMetrics:
    """Counters and histograms of one gateway."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.running = Gauge(
            "fedattn_gateway_queries_running",
            "Queries and fetches ahead that run now.",
            registry=registry,
        )
        self.waiting = Gauge(
            "fedattn_gateway_queries_waiting",
            "Queries and fetches ahead that wait for a place now.",
            registry=registry,
        )
        self.waits = Histogram(
            "fedattn_gateway_wait_seconds",
            "Time from a query's arrival until it had its last place, by which it started.",
            buckets=SECONDS,
            registry=registry,
        )
        self.put_back = Counter(
            "fedattn_gateway_queries_put_back",
            "Tries that a node refused for now, after which the query waited again.",
            registry=registry,
        )
        self._queries = Counter(
            "fedattn_gateway_queries",
            "Queries by outcome: answered, cancelled, or an error code.",
            ["outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "fedattn_gateway_query_duration_seconds",
            "Time of an answered query.",
            buckets=SECONDS,
            registry=registry,
        )
        self._first_token = Histogram(
            "fedattn_gateway_time_to_first_token_seconds",
            "Time to the first answer token, by the publisher's clock.",
            buckets=SECONDS,
            registry=registry,
        )
        self._between_tokens = Histogram(
            "fedattn_gateway_time_per_output_token_seconds",
            "Mean time between two tokens of an answer, by the publisher's clock.",
            buckets=TOKEN_SECONDS,
            registry=registry,
        )
        self._tokens = Counter("fedattn_gateway_output_tokens", "Answer tokens.", registry=registry)

    def end(self, outcome: str) -> None:
        """A query ended without an answer."""
        self._queries.labels(outcome).inc()

    def answer(self, result: participant_pb2.QueryResult, seconds: float) -> None:
        """A query was answered."""
        self._queries.labels("answered").inc()
        self._seconds.observe(seconds)
        self._first_token.observe(_bounded(result.time_to_first_token_s))
        num_tokens = min(result.num_tokens, MAX_NEW_TOKENS)
        self._tokens.inc(num_tokens)
        if num_tokens > 1:
            self._between_tokens.observe(_bounded(result.decode_s) / (num_tokens - 1))


def _bounded(told_s: float) -> float:
    """A time that a publisher tells: nobody checked it, and one NaN would spoil a sum for ever."""
    return min(max(0.0, told_s), MAX_TIME_S)  # in this order NaN becomes 0
