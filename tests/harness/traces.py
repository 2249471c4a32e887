"""Spans of this process, kept in memory."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fedattn.runtime.otel import OtelTracer
from fedattn.runtime.tracing import traced_by


class Trace:
    """Finished spans, and what is above each."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans() if span.name == name]

    def only(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def path(self, span: ReadableSpan) -> str:
        """Names from the outermost known span to this one."""
        by_id = {one.context.span_id: one for one in self.spans()}
        above = None if span.parent is None else by_id.get(span.parent.span_id)
        return span.name if above is None else f"{self.path(above)} > {span.name}"

    def text(self) -> str:
        """All that is exported."""
        return "\n".join(span.to_json() for span in self.spans())


def attributes_of(span: ReadableSpan) -> Mapping[str, object]:
    return dict(span.attributes or {})


@contextmanager
def traced() -> Iterator[Trace]:
    """Trace what this process does in the block."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with traced_by(OtelTracer(provider)):
        yield Trace(exporter)
