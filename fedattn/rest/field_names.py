"""Fields of a query by their paths, for whoever misspells one or puts it in a wrong place."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import cache

from fedattn.rest.fields import CompressionBody, SamplingBody
from fedattn.rest.query import QueryBody

_GROUPS: Mapping[str, type[CompressionBody | SamplingBody]] = {
    "compression": CompressionBody,
    "sampling": SamplingBody,
}


def similar_own_field(path: str) -> str | None:
    """As `similar_field`, for bodies of another API: what it calls `fedattn` is ours."""
    return similar_field(path) if path.startswith("fedattn.") else None


def similar_field(path: str) -> str | None:
    """The path of the field that is probably meant, such as `compression.codec` for `codec`.

    Args:
        path: of a field that there is not, with dots.
    """
    around, _, name = path.rpartition(".")
    places = _places()
    candidates = get_close_matches(name, places, n=1, cutoff=0.7)
    if not candidates:
        return None
    groups = around.split(".") if around else []
    outside = [group for group in groups if group not in _GROUPS]
    found = ".".join([*outside, places[candidates[0]]])
    return found if found != path else None


@cache
def _places() -> dict[str, str]:
    """Paths by names; the field of a query goes before one of the same name in a group."""
    grouped = {
        field.name: f"{group}.{field.name}"
        for group, body in _GROUPS.items()
        for field in fields(body)
    }
    return grouped | {name: name for name in QueryBody.model_fields}
