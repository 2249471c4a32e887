"""Constants both ends of the wire share."""

from fedattn.core.chunks import MAX_CHUNK_SIZE

PROTOCOL_VERSION = 13
BEAT_S, SILENCE_S = 3.0, 12.0
"""Longest pause between two events of a query, and after how long without one its gateway ends it.
"""
MAX_REASON_LENGTH = 500
"""Characters kept of a reason that another node gives for people."""
MAX_ERROR_LENGTH = 1000
"""Characters of the message of an error."""
MAX_TEXT_LENGTH = 2000
"""Characters kept of any other text of a node, such as what a report says of one member."""
MAX_LIFETIME_S = 30 * 86_400.0
MAX_CONTRIBUTOR_KEYS, MAX_PUBLISHER_KEYS = 64, 1024
"""Cache keys in one message of a contributor, and of a publisher."""
MAX_MESSAGE_SIZE = 1 << 20
"""Bytes of any gRPC message; a chunk with its envelope stays below."""
MAX_NODE_KEY_SIZE = 12 << 10
"""Bytes of what a node announces for hints to be sealed to, certificates included."""
MAX_SEALED_HINT_SIZE = 4 << 10
"""Bytes of what one contributor is told of a question."""
MAX_SEALED_KEY_SIZE, MAX_SIGNATURE_SIZE = 2 << 10, 1 << 10
"""Bytes of a key sealed for a member, and of a signature."""
MAX_TUNNEL_DATA = 64 << 10
"""Bytes of one message of a tunnel."""
MAX_TUNNELS_OF_NODE = 8
"""Connections of gateways that one node holds at once; each carries any number of queries."""

assert MAX_CHUNK_SIZE < MAX_MESSAGE_SIZE
