"""One trace over all nodes that a question touches. Nothing happens until a tracer is in place.

Spans hold names, numbers and ids, never a question, an answer or a private text; of an error only
its code. OpenTelemetry stands behind `Tracer` (`telemetry.py`) and is imported nowhere else.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from typing import Protocol

from fedattn.core.errors import FedAttnError

Value = bool | int | float | str | Sequence[str]

TRACEPARENT = "traceparent"
"""Name of the HTTP header and of the gRPC metadata (W3C Trace Context)."""
SESSION, NODE = "fedattn.session.id", "fedattn.node.id"


class Kind(StrEnum):
    """What a span is of its parent, as OpenTelemetry has it."""

    SERVER = "server"
    CLIENT = "client"
    INTERNAL = "internal"


class Span(Protocol):
    """A piece of work that runs."""

    def set(self, name: str, value: Value) -> None:
        """Say something of it."""

    def event(self, name: str, attributes: Mapping[str, Value]) -> None:
        """Say that something happened now."""

    def rename(self, name: str) -> None:
        """Give it a better name."""

    def fail(self, error_type: str) -> None:
        """Say that it did not succeed, though no error leaves it; why, by a code."""


class Tracer(Protocol):
    """What makes spans."""

    def span(
        self, name: str, kind: Kind, parent: str, attributes: Mapping[str, Value]
    ) -> AbstractContextManager[Span]:
        """As the function of that name."""

    def current(self) -> Span:
        """The innermost span of this task or thread."""

    def traceparent(self) -> str:
        """Of the current span; empty without one."""


class _NoSpan:
    def set(self, name: str, value: Value) -> None: ...

    def event(self, name: str, attributes: Mapping[str, Value]) -> None: ...

    def rename(self, name: str) -> None: ...

    def fail(self, error_type: str) -> None: ...


_NO_SPAN = _NoSpan()
_tracer: Tracer | None = None


@contextmanager
def traced_by(tracer: Tracer | None) -> Iterator[None]:
    """Let a tracer make the spans of this process while the block runs; none for None."""
    global _tracer  # noqa: PLW0603 - one a process, put in place by main
    before, _tracer = _tracer, tracer
    try:
        yield
    finally:
        _tracer = before


def span(
    name: str,
    attributes: Mapping[str, Value] | None = None,
    *,
    kind: Kind = Kind.INTERNAL,
    parent: str = "",
) -> AbstractContextManager[Span]:
    """The block as a span. An error that ends it is told by its code, without its message.

    Args:
        name: of few different ones.
        attributes: what is known of it by now.
        kind: what it is of its parent.
        parent: traceparent from another process, which nobody has checked; empty or malformed for
            the current span.
    """
    if _tracer is None:
        return nullcontext(_NO_SPAN)
    return _tracer.span(name, kind, parent, attributes or {})


def current_span() -> Span:
    """The innermost span of this task or thread."""
    return _NO_SPAN if _tracer is None else _tracer.current()


def traceparent() -> str:
    """What tells another process of the current span; empty without one."""
    return "" if _tracer is None else _tracer.traceparent()


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """The same as metadata of a gRPC call."""
    parent = traceparent()
    return ((TRACEPARENT, parent),) if parent else ()


def error_type(error: Exception) -> str:
    """What a span may say of an error: its code, or its class."""
    return error.code if isinstance(error, FedAttnError) else type(error).__name__
