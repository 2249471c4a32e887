"""What newer FastAPI may tell by itself where OpenTelemetry is configured: nothing.

It would tell addresses with their queries, and messages and locals of errors, which may hold text.
"""

from typing import Any

NO_TELEMETRY: Any = {  # typed where FastAPI is installed, and then only if it is new
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""The argument `telemetry` of an application; older ones take it and do nothing."""
