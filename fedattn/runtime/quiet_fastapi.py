"""What newer FastAPI may tell by itself where OpenTelemetry is configured: nothing.

It would tell addresses with their queries, and messages and locals of errors, which may hold text.
"""

NO_TELEMETRY = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""The argument `telemetry` of an application; older ones take it and do nothing."""
