"""The tables of metrics and alerts in docs/observability.md, from the services and the rules.

python -m benchmarks.metrics_table
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from benchmarks.blocks import ROOT, with_block, write_documents
from gateway.metrics import GatewayMetrics
from services.aggregator.metrics import AggregatorMetrics, NodeCollector
from services.aggregator.registry import NodeRegistry
from services.participant.metrics import ParticipantMetrics

DOCUMENT = ROOT / "docs" / "observability.md"
ALERTS = ROOT / "docker" / "monitoring" / "alerts.yml"
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricInfo:
    """One metric as Prometheus reads it.

    Attributes:
        name: with `_total`, if it is a counter.
        kind: counter, gauge or histogram.
        labels: their names.
        meaning: for people.
        samples: names of what is read.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    samples: tuple[str, ...]


class _Noting(CollectorRegistry):
    """Remembers what is registered."""

    def __init__(self) -> None:
        super().__init__()
        self.collectors: list[Collector] = []

    def register(self, collector: Collector) -> None:
        self.collectors.append(collector)
        super().register(collector)


def _aggregator(registry: CollectorRegistry) -> None:
    AggregatorMetrics(registry)
    registry.register(NodeCollector(NodeRegistry(1)))


SERVICES: dict[str, Callable[[CollectorRegistry], object]] = {
    "gateway": GatewayMetrics,
    "aggregator": _aggregator,
    "participant": ParticipantMetrics,
}


def metrics_of(service: str) -> list[MetricInfo]:
    """All metrics of a service's own, in the order of the code."""
    registry = _Noting()
    SERVICES[service](registry)
    return [info for collector in registry.collectors for info in _describe(collector)]


def _describe(collector: Collector) -> Iterator[MetricInfo]:
    for family in collector.collect():
        of_labels: Any = collector if isinstance(collector, MetricWrapperBase) else family
        suffixes = _SUFFIXES[family.type]
        yield MetricInfo(
            name=family.name + (suffixes[0] if family.type == "counter" else ""),
            kind=family.type,
            labels=tuple(of_labels._labelnames),  # noqa: SLF001 - there is no public name for it
            meaning=family.documentation,
            samples=tuple(family.name + suffix for suffix in suffixes),
        )


def metrics_table(service: str) -> str:
    """Markdown: a row for each metric."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for one in metrics_of(service):
        labels = ", ".join(f"`{label}`" for label in one.labels)
        lines.append(f"| `{one.name}` | {one.kind} | {labels} | {one.meaning.removesuffix('.')} |")
    return "\n".join(lines)


def alerts_table() -> str:
    """Markdown: a row for each alert."""
    lines = ["| alert | severity | when | for | what to do |", "|---|---|---|---|---|"]
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    for rule in group["rules"]:
        when = f"<code>{escape(rule['expr'], quote=False)}</code>".replace("|", "\\|")
        severity, remedy = rule["labels"]["severity"], rule["annotations"]["description"]
        cells = [rule["alert"], severity, when, rule.get("for", ""), remedy]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def document(text: str) -> str:
    """docs/observability.md with every table as the code has it."""
    for service in SERVICES:
        text = with_block(text, f"{service} metrics", metrics_table(service))
    return with_block(text, "alerts", alerts_table())


def documents() -> dict[Path, str]:
    """The document, as it should be."""
    return {DOCUMENT: document(DOCUMENT.read_text())}


if __name__ == "__main__":
    write_documents(documents())
