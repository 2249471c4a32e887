"""Tracing is off, and OpenTelemetry not even imported, unless the environment names an endpoint."""

import json
import subprocess
import sys

import pytest
import structlog

from fedattn.core.errors import ConfigurationError, NodeBusyError
from fedattn.runtime.logging import add_trace
from fedattn.runtime.telemetry import exporting_traces
from fedattn.runtime.tracing import current_span, span, trace_metadata, traceparent
from gateway.app import create_app
from tests.harness.gateway import make_settings
from tests.harness.traces import attributes_of, traced

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(autouse=True)
def _no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)


def test_services_that_do_not_trace_import_no_opentelemetry() -> None:
    """But for FastAPI, which imports its API; the gateway is in the next test."""
    program = (
        "import sys\n"
        "import services.aggregator.__main__, services.participant.__main__\n"
        "from fedattn.runtime.telemetry import exporting_traces\n"
        "from fedattn.runtime.tracing import span, traceparent\n"
        "with exporting_traces('test'), span('x') as one:\n"
        "    one.set('a', 1)\n"
        "    assert traceparent() == ''\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert ended.returncode == 0, ended.stderr


def test_fastapi_itself_tells_nobody_of_requests() -> None:
    """It would tell addresses with their queries, and messages of errors."""
    app = create_app(make_settings("127.0.0.1:1"))
    telemetry = vars(app).get("_telemetry", {})
    assert not {name for name, value in telemetry.items() if value}


def test_without_the_extra_an_endpoint_is_told_to_be_of_no_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with structlog.testing.capture_logs() as entries, exporting_traces("test"):
        assert traceparent() == ""
    assert entries[0]["remedy"] == "install with: pip install 'fedattn[telemetry]'"


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_EXPORTER", "zipkin")],
)
def test_another_way_of_sending_is_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"{name}: expected .*got '{value}'"):
        with exporting_traces("test"):
            pass


def test_what_ends_a_span_is_told_without_its_message() -> None:
    with traced() as trace:
        for error in (NodeBusyError("a secret"), ValueError("a secret")):
            with pytest.raises(type(error)), span("work"):
                raise error
    assert [attributes_of(one)["error.type"] for one in trace.spans()] == [
        "node_busy",
        "ValueError",
    ]
    assert "secret" not in trace.text()


def test_entries_of_the_log_bear_the_ids_of_the_span() -> None:
    with traced() as trace, span("work"):
        ((name, value),) = trace_metadata()
        entry = add_trace(None, "info", {"event": "x"})
        current_span().set("a", 1)
    context = trace.only("work").context
    assert entry["trace_id"] == f"{context.trace_id:032x}"
    assert entry["span_id"] == f"{context.span_id:016x}"
    assert (name, value) == ("traceparent", f"00-{entry['trace_id']}-{entry['span_id']}-01")
    assert json.loads(trace.only("work").to_json())["attributes"] == {"a": 1}
    assert add_trace(None, "info", {"event": "x"}) == {"event": "x"}
