"""Constants both ends of the wire share."""

import re

from fedattn.core.chunks import MAX_CHUNK_SIZE
from fedattn.core.errors import InvalidRequestError

PROTOCOL_VERSION = 5
MAX_MEMBERS = 256
MAX_QUESTION_LENGTH = 32_768
MAX_REASON_LENGTH = 500
"""Characters kept of a reason that another node gives for people."""
MAX_DEADLINE_S = 3600.0
MAX_LIFETIME_S = 30 * 86_400.0
MAX_CONTRIBUTOR_KEYS, MAX_PUBLISHER_KEYS = 64, 1024
"""Cache keys in one message of a contributor, and of a publisher."""
MAX_MESSAGE_SIZE = 1 << 20
"""Bytes of any gRPC message; a chunk with its envelope stays below."""

assert MAX_CHUNK_SIZE < MAX_MESSAGE_SIZE

_NODE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check_node_id(node_id: str) -> str:
    """Return the id, or raise InvalidRequestError."""
    if not _NODE_ID.fullmatch(node_id):
        raise InvalidRequestError(
            f"node id {node_id[:80]!r}: expected 1 to 64 characters of A-Z a-z 0-9 . _ -"
        )
    return node_id
