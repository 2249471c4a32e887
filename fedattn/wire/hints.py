"""What contributors are told of a question, sealed to each of them."""

from google.protobuf.message import DecodeError

from fedattn.core.errors import CorruptFrameError, IdentityMismatchError, InvalidRequestError
from fedattn.core.node_id import check_node_id
from fedattn.core.request import PublicKey, SessionRequest
from fedattn.core.share import MAX_TEXT_SIZE, SALT_SIZE, Hint
from fedattn.wire.convert import require_range
from fedattn.wire.identity import Identity, Kind
from fedattn.wire.protocol import MAX_SEALED_HINT_SIZE
from fedattn.wire.requests import key_from_wire, key_to_wire
from fedattn.wire.sealing import KeyPair, seal
from fedattn.wire.v1 import session_pb2

_SIZE_SIZE, _PADDED_TO = 2, 256
"""Sizes are multiples of so many bytes, so that they say little of the question's length."""


def sign_node_key(node_id: str, keys: KeyPair | None, identity: Identity) -> session_pb2.Signed:
    """What hints for a node are sealed to, as it announces it."""
    key = None if keys is None else key_to_wire(keys.public)
    message = session_pb2.NodeKey(node_id=node_id, key=key)
    return identity.sign(Kind.NODE_KEY, message.SerializeToString())


def read_node_key(signed: session_pb2.Signed, node_id: str, identity: Identity) -> PublicKey | None:
    """The key of a node, None in plaintext.

    Raises:
        IdentityMismatchError: the node did not sign it.
        InvalidRequestError: it is no key.
    """
    try:
        message = session_pb2.NodeKey.FromString(signed.payload)
    except DecodeError as error:
        raise InvalidRequestError(f"the key of {node_id}: its bytes are no such message") from error
    identity.verify(Kind.NODE_KEY, signed, node_id)
    if check_node_id(message.node_id) != node_id:
        raise IdentityMismatchError(f"the key of {node_id} is that of {message.node_id}")
    if not identity.is_verifying:
        return None
    return key_from_wire(message.key)


def seal_hint(hint: Hint, receiver: PublicKey | None, publisher: str) -> bytes:
    """A hint for one contributor alone; in plaintext for whoever sees it.

    Args:
        hint: what it is told.
        receiver: its key; None in plaintext.
        publisher: id of the node that tells it.

    Raises:
        ValueError: the receiver's key is no point of its curve or lattice.
    """
    payload = session_pb2.Hint(salt=hint.salt, text=hint.text).SerializeToString()
    sized = len(payload).to_bytes(_SIZE_SIZE, "little") + payload
    padded = sized + bytes(-len(sized) % _PADDED_TO)
    return padded if receiver is None else seal(padded, receiver, _info(hint.digest, publisher))


def open_hint(sealed: bytes, keys: KeyPair | None, request: SessionRequest) -> Hint:
    """What this node is told, as the publisher signed it.

    Args:
        sealed: from the invitation.
        keys: of this node; None in plaintext.
        request: of the publisher, verified.

    Raises:
        IdentityMismatchError: it is not what the publisher signed.
        InvalidRequestError: it is of no use.
    """
    require_range("size of a hint", len(sealed), 1, MAX_SEALED_HINT_SIZE)
    try:
        padded = sealed
        if keys is not None:
            padded = keys.decrypt(sealed, _info(request.hint_digest, request.node_id))
        size = int.from_bytes(padded[:_SIZE_SIZE], "little")
        message = session_pb2.Hint.FromString(padded[_SIZE_SIZE:][:size])
    except (CorruptFrameError, DecodeError) as error:
        raise IdentityMismatchError(
            f"what {request.node_id} tells of its question cannot be opened: it was sealed for "
            f"another node or session, or before this node started; ask again"
        ) from error
    require_range("salt of a hint", len(message.salt), SALT_SIZE, SALT_SIZE)
    require_range("bytes told of the question", len(message.text.encode()), 1, MAX_TEXT_SIZE)
    hint = Hint(text=message.text, salt=message.salt)
    if hint.digest != request.hint_digest:
        raise IdentityMismatchError(
            f"what this node was told of the question is not what {request.node_id} signed"
        )
    return hint


def _info(digest: bytes, publisher: str) -> bytes:
    return b"fedattn hint\0" + publisher.encode() + b"\0" + digest
