"""What a value should have been, in our words: by the type of a fault that pydantic found."""

from collections.abc import Mapping
from typing import Any

_WORDS: Mapping[str, str] = {
    "string_type": "text",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} characters",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number that is finite",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_long": "at most {max_length} items",
    "too_short": "at least {min_length} items",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dataclass_type": "an object",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "enum": "{expected}",
}


def expectation(fault: Mapping[str, Any]) -> str | None:
    """Such as `at most 64 characters`; None for a fault that tells by itself."""
    words = _WORDS.get(fault["type"])
    return None if words is None else words.format_map(fault.get("ctx", {}))


def own_words(fault: Mapping[str, Any]) -> str:
    """What the fault tells by itself."""
    message: str = fault["msg"].removeprefix("Value error, ")
    return message


def message_of(fault: Mapping[str, Any]) -> str:
    """Such as `expected at most 64 characters`, or what the fault tells by itself."""
    wanted = expectation(fault)
    return own_words(fault) if wanted is None else f"expected {wanted}"
