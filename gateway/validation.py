"""Naming the fields of a request that do not fit, without repeating private text."""

import json
from typing import Any

from fastapi.exceptions import RequestValidationError

from gateway.problems import FieldError

MAX_FIELD_ERRORS = 16
_MAX_QUOTED = 80
_QUOTABLE = frozenset(
    {"publisher", "contributors", "plan", "publisher_plan", "codec", "prefix", "stream"}
)


def describe_fields(error: RequestValidationError) -> list[FieldError]:
    """Field, expected and got of each fault, at most `MAX_FIELD_ERRORS`."""
    return [_describe(fault) for fault in error.errors()[:MAX_FIELD_ERRORS]]


def _describe(fault: dict[str, Any]) -> FieldError:
    path = [str(part) for part in fault["loc"] if part != "body"]
    match fault["type"]:
        case "json_invalid":
            return FieldError(field="body", expected="a JSON document", got="malformed JSON")
        case "missing":
            return FieldError(
                field=".".join(path) or "body", expected="a value (required)", got="nothing"
            )
        case "extra_forbidden":
            return FieldError(
                field=".".join(path)[:_MAX_QUOTED],
                expected="no field of this name; see the schema at /openapi.json",
                got="an unknown field",
            )
    return FieldError(
        field=".".join(path) or "body",
        expected=fault["msg"],
        got=_describe_value(fault["input"], is_quotable=bool(path) and path[0] in _QUOTABLE),
    )


def _describe_value(value: object, *, is_quotable: bool) -> str:
    match value:
        case None | bool() | int() | float():
            return json.dumps(value)[:_MAX_QUOTED]
        case str() if is_quotable:
            return repr(value[:_MAX_QUOTED])
        case str():
            return f"text of {len(value)} characters"
        case dict():
            return f"an object of {len(value)} fields"
        case list():
            return f"a list of {len(value)} items"
    return type(value).__name__
