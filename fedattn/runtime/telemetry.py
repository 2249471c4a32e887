"""Spans by OpenTelemetry, sent to where this process's own environment says."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING

import structlog

from fedattn import __version__
from fedattn.core.errors import ConfigurationError
from fedattn.runtime.extras import install_hint
from fedattn.runtime.tracing import Tracer, traced_by

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = structlog.get_logger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_EXPORTERS = ("otlp", "")
_LAST_SPANS_S = 3.0


@contextmanager
def exporting_traces(service: str) -> Iterator[None]:
    """Trace while the block runs, if the environment names an OTLP endpoint.

    Args:
        service: such as gateway or participant/NODE; OTEL_RESOURCE_ATTRIBUTES may say more.

    Raises:
        ConfigurationError: the environment wants a way of sending that is not known here.
    """
    endpoint = _endpoint()
    provider = None if endpoint is None else _make_provider(service)
    if provider is None:
        yield
        return
    from fedattn.runtime.otel import OtelTracer  # noqa: PLC0415 - an extra brings its library

    log.info("tracing", endpoint=endpoint)
    tracer: Tracer = OtelTracer(provider)
    try:
        with traced_by(tracer):
            yield
    finally:
        # its own time-out does not bound how often it tries; the thread ends with the process
        closing = Thread(target=provider.shutdown, daemon=True)
        closing.start()
        closing.join(_LAST_SPANS_S)


def _endpoint() -> str | None:
    """Where spans go; None for nowhere.

    Raises:
        ConfigurationError: by no way that is known here.
    """
    given = [value for name in _ENDPOINTS if (value := os.environ.get(name, "").strip())]
    is_disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if not given or is_disabled or exporter == "none":
        return None
    if exporter not in _EXPORTERS:
        raise ConfigurationError(f"OTEL_TRACES_EXPORTER: expected otlp or none, got {exporter!r}")
    for name in _PROTOCOLS:
        protocol = os.environ.get(name, "").strip() or _PROTOCOL
        if protocol != _PROTOCOL:
            raise ConfigurationError(
                f"{name}: expected {_PROTOCOL}, got {protocol!r}; collectors take it on port 4318"
            )
    return _without_secrets(given[0])


def _without_secrets(url: str) -> str:
    """A URL as a log may show it: without who logs in, and without its query."""
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0])


def _make_provider(service: str) -> "TracerProvider | None":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError:
        log.warning("no_tracing", remedy=install_hint("telemetry"))
        return None
    provider = TracerProvider(resource=Resource.create(_resource(service)), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _resource(service: str) -> Mapping[str, str]:
    """What every span of this process bears."""
    kind, _, instance = service.partition("/")
    name = os.environ.get("OTEL_SERVICE_NAME") or f"fedattn-{kind}"
    resource = {"service.name": name, "service.version": __version__}
    return resource | ({"service.instance.id": instance} if instance else {})
