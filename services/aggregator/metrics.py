"""What the aggregator tells Prometheus, of itself and of the nodes that dial in to it."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fedattn.core.session import MemberState, SessionState
from fedattn.runtime.metrics import SECONDS
from services.aggregator.registry import NodeRegistry


class AggregatorMetrics:
    """Counters and gauges of one aggregator. Rows are counted when a session closes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sessions_open = Gauge(
            "fedattn_aggregator_sessions_open", "Sessions that run now.", registry=registry
        )
        self.tunnels_open = Gauge(
            "fedattn_aggregator_tunnels_open",
            "Connections of gateways to nodes now.",
            registry=registry,
        )
        self._sessions = Counter(
            "fedattn_aggregator_sessions",
            "Sessions that ended, by whether the publisher got its rows.",
            ["outcome"],
            registry=registry,
        )
        self._refused = Counter(
            "fedattn_aggregator_sessions_refused",
            "Sessions that were not opened, by error code.",
            ["code"],
            registry=registry,
        )
        self._bytes = Counter(
            "fedattn_aggregator_kv_bytes",
            "Bytes of KV frames, up from participants or down to them.",
            ["direction"],
            registry=registry,
        )
        self._lost = Counter(
            "fedattn_aggregator_members_lost",
            "Members that were lost in a session.",
            registry=registry,
        )
        waits = Histogram(
            "fedattn_aggregator_wait_seconds",
            "Waits in a session, by cause: a publisher for answers to its invitations, a member "
            "for rows of others (by its own word).",
            ["cause"],
            buckets=SECONDS,
            registry=registry,
        )
        self.answer_waits, self._row_waits = waits.labels("answers"), waits.labels("rows")

    def refuse(self, code: str) -> None:
        """A session was not opened."""
        self._refused.labels(code).inc()

    def close(self, state: SessionState) -> None:
        """A session is over."""
        publisher = state.ledgers[-1]
        complete = publisher.state is MemberState.COMPLETE
        self._sessions.labels("complete" if complete else "aborted").inc()
        for ledger in state.ledgers:
            self._bytes.labels("up").inc(sum(ledger.bytes_up.values()))
            self._bytes.labels("down").inc(sum(ledger.bytes_down.values()))
            if ledger.state is MemberState.COMPLETE:
                self._row_waits.observe(ledger.wait_s)
            if ledger.state is MemberState.LOST and ledger.awaited:
                self._lost.inc()


class NodeCollector(Collector):
    """Gauges of every joined node, by its last heartbeat: nodes behind NAT cannot be scraped."""

    def __init__(self, nodes: NodeRegistry) -> None:
        self._nodes = nodes

    def collect(self) -> Iterator[Metric]:
        """One sample a node and gauge; the registry bounds the nodes."""
        joined = _family("fedattn_aggregator_nodes_joined", "Nodes that are joined now.")
        active = _family("fedattn_node_sessions_running", "Sessions a node takes part in.", "node")
        pressure = _family(
            "fedattn_node_pressure", "1 none, 2 high (fewer rows), 3 critical (refuses).", "node"
        )
        memory = _family("fedattn_node_memory_free_ratio", "Share of its memory left.", "node")
        heat = _family("fedattn_node_temperature_celsius", "Of its hottest sensor.", "node")
        nodes = self._nodes.here()
        joined.add_metric([], len(nodes))
        for node in nodes:
            active.add_metric([node.node_id], node.active_sessions)
            if node.health is None:
                continue
            pressure.add_metric([node.node_id], node.health.pressure)
            memory.add_metric([node.node_id], node.health.memory_free)
            if node.health.temperature_c:
                heat.add_metric([node.node_id], node.health.temperature_c)
        yield from (joined, active, pressure, memory, heat)


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)
