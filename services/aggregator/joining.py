"""What a node must say of itself to be joined, wherever it is."""

import re

from fedattn.core.errors import InvalidRequestError, ProtocolMismatchError
from fedattn.core.node_id import check_node_id, is_service
from fedattn.core.types import KvShape
from fedattn.wire.convert import require_range, shape_from_wire, sizes_from_wire
from fedattn.wire.protocol import MAX_NODE_KEY_SIZE, PROTOCOL_VERSION
from fedattn.wire.v1 import aggregator_pb2 as pb

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_MAX_CODECS = 64


def check_join(message: pb.Join) -> KvShape:
    """Check how a node introduces itself, and drop what is not known; the sizes of its rows.

    Raises:
        ProtocolMismatchError: it speaks another version.
        InvalidRequestError: the message is not well-formed, or names a service.
    """
    if message.protocol_version != PROTOCOL_VERSION:
        raise ProtocolMismatchError(
            f"node {message.node_id[:64]!r} speaks protocol version "
            f"{message.protocol_version}, this aggregator {PROTOCOL_VERSION}; "
            f"upgrade the older one"
        )
    node_id = check_node_id(message.node_id)
    if is_service(node_id):
        raise InvalidRequestError(f"{node_id!r} is the name of a service; choose another node id")
    if not _FINGERPRINT.fullmatch(message.model_fingerprint):
        raise InvalidRequestError(
            f"node {node_id}: the model fingerprint must be 64 hex digits, "
            f"got {message.model_fingerprint[:80]!r}"
        )
    offered = message.capabilities
    require_range("max_positions", offered.max_positions, 1, 1 << 31)
    require_range("prefix_tokens", offered.prefix_tokens, 0, offered.max_positions)
    require_range("number of codecs", len(offered.codec_ids), 1, _MAX_CODECS)
    require_range("length of model_name", len(offered.model_name), 0, 200)
    require_range("length of software_version", len(offered.software_version), 0, 40)
    require_range("size of the node's key", message.key.ByteSize(), 0, MAX_NODE_KEY_SIZE)
    message.DiscardUnknownFields()  # it is kept, and told to others
    shape = shape_from_wire(offered.shape)
    if offered.HasField("sizes"):
        sizes_from_wire(offered.sizes, shape)
    return shape
