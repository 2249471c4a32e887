"""Names of nodes."""

import re

from fedattn.core.errors import InvalidRequestError

AGGREGATOR, GATEWAY, NATS = "aggregator", "gateway", "nats"
"""Names of the services that are no nodes."""

_SERVICE = re.compile(r"(aggregator)(?:-[0-9]+)?|gateway|nats", re.IGNORECASE)
_NODE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def is_node_id(text: str) -> bool:
    """Whether it can be the id of a node."""
    return _NODE_ID.fullmatch(text) is not None


def check_node_id(node_id: str) -> str:
    """Return the id, or raise InvalidRequestError."""
    if not is_node_id(node_id):
        raise InvalidRequestError(
            f"node id {node_id[:80]!r}: expected 1 to 64 characters of A-Z a-z 0-9 . _ -"
        )
    return node_id


def is_service(name: str) -> bool:
    """Whether a name means a service, such as gateway or aggregator-1, and no node may bear it."""
    return _SERVICE.fullmatch(name) is not None


def names_of(name: str) -> tuple[str, ...]:
    """What whoever bears a name may be taken for: aggregator-1 for an aggregator too."""
    found = _SERVICE.fullmatch(name)
    return tuple(dict.fromkeys((name, AGGREGATOR))) if found and found[1] else (name,)


def check_name(name: str) -> str:
    """Return the name of an aggregator or a federation, or raise InvalidRequestError."""
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"name {name[:80]!r}: expected 1 to 63 characters of a-z 0-9 -, with none at an end"
        )
    return name
