"""The keys of one session, as one of its members has them.

What a key is sealed for names the terms and both members, and the sender signs it: a key from
another session, for other terms or in another node's name opens nothing.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from fedattn.core.errors import CorruptFrameError, FedAttnError, FrameError
from fedattn.core.frames import ReceivedFrame, open_frame, seal_frame
from fedattn.core.request import PublicKey
from fedattn.core.seals import Seal
from fedattn.core.terms import SessionTerms
from fedattn.wire.identity import Identity, Kind, Peer
from fedattn.wire.protocol import MAX_SEALED_KEY_SIZE
from fedattn.wire.sealing import ContentKey, KeyPair, seal_key
from fedattn.wire.terms import terms_to_wire
from fedattn.wire.v1 import session_pb2 as pb

log = structlog.get_logger(__name__)


class Sealing(Protocol):
    """How frames leave, and how they are read again."""

    @property
    def content_key(self) -> ContentKey | None:
        """The key of this member's own frames."""

    def keys_for(self, receivers: Iterable[int]) -> list[pb.SealedKey]:
        """The key of this member's frames, sealed for each of these places."""

    def accept(self, message: pb.SealedKey) -> None:
        """Take the key of another member's frames."""

    def seal(self, frame: bytes) -> bytes:
        """An own frame as it leaves."""

    def open(self, sender: int, frame: ReceivedFrame) -> ReceivedFrame:
        """A frame of another member, to be read.

        Raises:
            FrameError: it is not what that member sealed for this one.
        """

    @property
    def piece_seal(self) -> Seal | None:
        """Encrypts own pieces of queries or of what is made of them; None in plaintext."""

    def piece_opener(self, sender: int) -> Seal | None:
        """Decrypts those of another member; None in plaintext.

        Raises:
            CorruptFrameError: the key for them is missing.
        """


class NoSealing:
    """Plaintext: frames leave as they are."""

    content_key = None

    def keys_for(self, receivers: Iterable[int]) -> list[pb.SealedKey]:  # noqa: ARG002
        return []

    def accept(self, message: pb.SealedKey) -> None:
        """Ignored: nothing needs it."""

    def seal(self, frame: bytes) -> bytes:
        return frame

    def open(self, sender: int, frame: ReceivedFrame) -> ReceivedFrame:  # noqa: ARG002
        return frame

    piece_seal = None

    def piece_opener(self, sender: int) -> None:
        """Nothing is sealed."""


@dataclass(frozen=True, slots=True)
class SealedMember:
    """Another member: who it is, and what keys for it are sealed to."""

    peer: Peer
    key: PublicKey


class SessionSealing:
    """The keys of a session. `accept` runs on the event loop, all else in threads.

    Args:
        terms: of the session.
        index: place of this member.
        identity: of this node.
        own: what others seal keys for this member to.
        members: the other members by place, verified.
        content_key: of frames cached since an earlier session; drawn if not given.
    """

    def __init__(  # noqa: PLR0913 - spelt out
        self,
        terms: SessionTerms,
        index: int,
        identity: Identity,
        own: KeyPair,
        members: Mapping[int, SealedMember],
        *,
        content_key: ContentKey | None = None,
    ) -> None:
        digest = hashlib.sha256(terms_to_wire(terms).SerializeToString(deterministic=True)).digest()
        self._terms, self._digest, self._index = terms, digest, index
        self._identity, self._own, self._members = identity, own, members
        self.content_key = content_key or ContentKey()
        self._keys: dict[int, ContentKey] = {}
        self._faults: dict[int, str] = {}

    def keys_for(self, receivers: Iterable[int]) -> list[pb.SealedKey]:
        return [message for index in receivers if (message := self._key_for(index))]

    def _key_for(self, receiver: int) -> pb.SealedKey | None:
        info = self._info(self._index, receiver)
        try:
            sealed = seal_key(self.content_key, self._members[receiver].key, info)
        except ValueError:  # its own doing: it signed a key that is none
            log.warning("no_such_key", node=self._members[receiver].peer.node_id)
            return None
        signature = self._identity.signature(Kind.KEY, info + sealed)
        return pb.SealedKey(receiver=receiver, sealed=sealed, signature=signature)

    def accept(self, message: pb.SealedKey) -> None:
        sender = message.sender
        if sender not in self._members or sender in self._keys:
            return
        info = self._info(sender, self._index)
        try:
            if max(len(message.sealed), len(message.signature)) > MAX_SEALED_KEY_SIZE:
                raise CorruptFrameError("it is larger than any")
            peer = self._members[sender].peer
            peer.verify(Kind.KEY, info + message.sealed, message.signature)
            self._keys[sender] = self._own.open(message.sealed, info)
        except FedAttnError as error:
            self._faults[sender] = str(error)

    def seal(self, frame: bytes) -> bytes:
        return seal_frame(frame, self.content_key.seal)

    def open(self, sender: int, frame: ReceivedFrame) -> ReceivedFrame:
        where = f"frame from {self._name(sender)} at layer {frame.header.layer}"
        key = self._key_of(sender, where)
        try:
            return open_frame(frame, key.open)
        except FrameError as error:
            raise CorruptFrameError(
                f"{where} cannot be opened: {error}; somebody between changed it, or sent it from "
                f"elsewhere"
            ) from None

    @property
    def piece_seal(self) -> Seal:
        return self.content_key.seal

    def piece_opener(self, sender: int) -> Seal:
        return self._key_of(sender, f"piece from {self._name(sender)}").open

    def _key_of(self, sender: int, where: str) -> ContentKey:
        key = self._keys.get(sender)
        if key is None:
            why = self._faults.get(sender, "none came before it")
            raise CorruptFrameError(f"{where} cannot be opened, the key for it is missing: {why}")
        return key

    def _name(self, index: int) -> str:
        return self._terms.layout.members[index].node_id

    def _info(self, sender: int, receiver: int) -> bytes:
        """What a key is sealed for: these terms, from one member to another."""
        places = sender.to_bytes(2, "big") + receiver.to_bytes(2, "big")
        return b"fedattn content key\0" + self._digest + places
