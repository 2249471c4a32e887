"""The one module that imports OpenTelemetry; loaded where traces are wanted."""

import re
from asyncio import CancelledError
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TracerProvider,
)

from fedattn import __version__
from fedattn.runtime.tracing import Kind, Span, Value, error_type

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
"""The only version there is; later ones may look otherwise."""
_KINDS = {
    Kind.SERVER: SpanKind.SERVER,
    Kind.CLIENT: SpanKind.CLIENT,
    Kind.INTERNAL: SpanKind.INTERNAL,
}


class _OtelSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def set(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)

    def event(self, name: str, attributes: Mapping[str, Value]) -> None:
        self._span.add_event(name, attributes)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fail(self, error_type: str) -> None:
        self._span.set_attribute("error.type", error_type)
        self._span.set_status(StatusCode.ERROR)


class OtelTracer:
    """Makes spans with a provider of the SDK; the global one stays as it is."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("fedattn", __version__)

    @contextmanager
    def span(
        self, name: str, kind: Kind, parent: str, attributes: Mapping[str, Value]
    ) -> Iterator[Span]:
        """A span that is current in its block.

        At its end what was current before is so again, and no token is given back: a generator may
        end in another context than it began in.
        """
        before = contexts.get_current()
        within = _context_of(parent) or before
        span = self._tracer.start_span(name, within, _KINDS[kind], attributes)
        contexts.attach(trace.set_span_in_context(span, within))
        try:
            yield _OtelSpan(span)
        except Exception as error:
            _OtelSpan(span).fail(error_type(error))
            raise
        except (CancelledError, GeneratorExit):
            span.set_attribute("error.type", "cancelled")
            raise
        finally:
            contexts.attach(before)
            span.end()

    def current(self) -> Span:
        """The innermost span of this task or thread."""
        return _OtelSpan(trace.get_current_span())

    def traceparent(self) -> str:
        """Of the current span; baggage and vendors' state stay here."""
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return ""
        flags = context.trace_flags & TraceFlags.SAMPLED
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"


def _context_of(parent: str) -> contexts.Context | None:
    """What a span of another process is told by; None if that is nothing or malformed."""
    match = _TRACEPARENT.fullmatch(parent)
    if match is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    context = SpanContext(
        trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags & TraceFlags.SAMPLED)
    )
    if not context.is_valid:
        return None
    return trace.set_span_in_context(NonRecordingSpan(context), contexts.Context())
