"""Names of nodes."""

import re

from fedattn.core.errors import InvalidRequestError

AGGREGATOR, GATEWAY = "aggregator", "gateway"
"""Names of the two services that are no nodes."""

_NODE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


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
