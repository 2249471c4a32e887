"""Limits that a value states once: its dataclass checks them, `fedattn.rest` documents them.

A field made by `limited` or `described` carries its meaning and its range as metadata, in the
words of JSON schema, which pydantic understands without this package knowing it.
"""

from collections.abc import Sequence
from dataclasses import Field, field, fields
from typing import Any, ClassVar, Protocol, TypeVar

from fedattn.core.errors import InvalidInputError, InvalidRequestError

MAX_MEMBERS = 256
"""Participants of a session, publisher included."""
MAX_QUESTION_LENGTH = 32_768
MAX_TOPIC_LENGTH = 2000
MAX_NODE_TOKENS = 1 << 24
MAX_BUDGET_BYTES = 1 << 50
MAX_DEADLINE_S = 3600.0
DEFAULT_DEADLINE_S = 120.0
DEFAULT_MIN_PARTICIPANTS = 2
MAX_SEED = 2**63 - 1

T = TypeVar("T")


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def limited(default: T, text: str, low: float, high: float, *, is_low_excluded: bool = False) -> T:
    """A field that holds a number.

    Args:
        default: of the field.
        text: what it means, for people.
        low: least value.
        high: most.
        is_low_excluded: whether it must be above `low`.
    """
    minimum = "exclusiveMinimum" if is_low_excluded else "minimum"
    return _field(default, text, {minimum: low, "maximum": high})


def described(default: T, text: str, *, choices: Sequence[str] = ()) -> T:
    """A field that holds anything else; `choices` are the values there are, if few."""
    return _field(default, text, {"enum": list(choices)} if choices else {})


def check_limits(value: _Dataclass, error: type[InvalidInputError]) -> None:
    """Hold the numbers of a dataclass to the limits of their fields; None is no number.

    Raises:
        InvalidInputError: the given class of it; names field, range and what it got.
    """
    for entry in fields(value):
        limits = entry.metadata.get("json_schema_extra", {})
        number = getattr(value, entry.name)
        if "maximum" in limits and number is not None:
            _check(entry.name, number, limits, error)


def check_range(
    name: str, value: float, low: float, high: float, error: type[InvalidInputError]
) -> None:
    """Hold a number to low <= value <= high.

    Raises:
        InvalidInputError: the given class of it.
    """
    if not low <= value <= high:  # NaN is outside
        raise error(f"{name} must be between {low} and {high}, got {value}")


def check_text(name: str, text: str, error: type[InvalidInputError] = InvalidRequestError) -> str:
    """Return a text that can travel, which is one of Unicode characters.

    Raises:
        InvalidInputError: the given class of it; it has half characters (surrogates), as bytes
            have that are not UTF-8.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise error(f"{name} holds bytes that are no text; write it as UTF-8")
    return text


def _field(default: T, text: str, schema: dict[str, Any]) -> T:
    metadata = {"description": text, "strict": True, "json_schema_extra": schema}
    return field(default=default, metadata=metadata)


def _check(
    name: str, value: float, limits: dict[str, float], error: type[InvalidInputError]
) -> None:
    if "minimum" in limits:
        check_range(name, value, limits["minimum"], limits["maximum"], error)
    elif not limits["exclusiveMinimum"] < value <= limits["maximum"]:  # NaN is outside
        raise error(
            f"{name} must be above {limits['exclusiveMinimum']} and at most "
            f"{limits['maximum']}, got {value}"
        )


def check_text_encoding(name: str) -> str:
    """`name`, if Python decodes texts by it.

    Raises:
        ValueError: it does not.
    """
    try:
        b"text".decode(name)
    except (LookupError, UnicodeError):  # the former: unknown, or a codec that makes no text
        raise ValueError("expected a text encoding of Python, such as cp1252") from None
    return name
