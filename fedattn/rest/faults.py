"""Naming the fields of a body that do not fit, without repeating private text."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from pydantic import ValidationError

from fedattn.core.errors import InvalidRequestError
from fedattn.core.expectations import expectation, own_words
from fedattn.rest.field_names import similar_field
from fedattn.rest.problems import FieldError

MAX_FIELD_ERRORS = 16
_MAX_QUOTED = 80
_UNKNOWN = "an unknown field"

P = ParamSpec("P")
T = TypeVar("T")


def checked(make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """A body, or what it is made with that does not fit.

    Raises:
        InvalidInputError: names the fields, what they take and what they got.
    """
    try:
        return make(*args, **kwargs)
    except ValidationError as error:
        raise InvalidRequestError(summarize(describe_faults(error.errors()))) from None


def summarize(faults: Iterable[FieldError]) -> str:
    """All faults in one line."""
    return "; ".join(map(_line, faults))


def _line(fault: FieldError) -> str:
    if fault.got == _UNKNOWN:
        return f"unknown field `{fault.field}`; {fault.expected}"
    return f"{fault.field}: {fault.expected}, got {fault.got}"


def describe_faults(
    faults: Iterable[Mapping[str, Any]], similar: Callable[[str], str | None] = similar_field
) -> list[FieldError]:
    """Field, expected and got of each fault that pydantic found, at most `MAX_FIELD_ERRORS`.

    Args:
        faults: as pydantic tells them.
        similar: the field that is meant by the path of an unknown one.
    """
    return [_describe(fault, similar) for fault in tuple(faults)[:MAX_FIELD_ERRORS]]


def printable(text: str) -> str:
    """A text that can be written as UTF-8: half characters (surrogates) become their escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _describe(fault: Mapping[str, Any], similar: Callable[[str], str | None]) -> FieldError:
    parts = [str(part) for part in fault["loc"] if part != "body"]
    path = printable(".".join(parts))[:_MAX_QUOTED] or "body"
    match fault["type"]:
        case "json_invalid":
            return FieldError(field="body", expected="a JSON document", got="malformed JSON")
        case "missing":
            return FieldError(field=path, expected="a value (required)", got="nothing")
        case "extra_forbidden" | "unexpected_keyword_argument":
            meant = similar(path)
            hint = "" if meant is None else f"did you mean `{meant}`? "
            return FieldError(
                field=path, expected=f"{hint}/openapi.json has all fields", got=_UNKNOWN
            )
        case "string_unicode":
            return FieldError(field=path, expected="UTF-8 text", got="bytes that are no text")
    expected = expectation(fault) or own_words(fault)
    return FieldError(field=path, expected=expected, got=_describe_value(fault["input"]))


def _describe_value(value: object) -> str:
    match value:
        case None | bool() | int() | float():
            return json.dumps(value)[:_MAX_QUOTED]
        case str():
            return f"text of {len(value)} characters"
        case dict():
            return f"an object of {len(value)} fields"
        case list() | tuple():
            return f"a list of {len(value)} items"
    return type(value).__name__
