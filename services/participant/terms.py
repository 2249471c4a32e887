"""The terms of a session, held against this node and against what everybody signed."""

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cachetools import TTLCache

from fedattn.core.agreement import MemberStatement, PassageSpan, check_agreement
from fedattn.core.errors import (
    IdentityMismatchError,
    RequestStaleError,
    SessionStateError,
    TermsRefusedError,
)
from fedattn.core.request import SessionRequest
from fedattn.core.spans import Role
from fedattn.core.terms import SessionTerms
from fedattn.wire.identity import Identity, Kind, Peer
from fedattn.wire.requests import request_from_wire, statement_from_wire
from fedattn.wire.sealing import ContentKey, KeyPair
from fedattn.wire.terms import terms_from_wire
from fedattn.wire.v1 import aggregator_pb2, session_pb2
from services.participant.node import ParticipantNode
from services.participant.sealing import NoSealing, SealedMember, Sealing, SessionSealing

MAX_AGE_S = 900.0
"""How far a publisher's clock may be from this node's."""
_MAX_SEEN = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRequest:
    """A publisher's request whose signature has been verified.

    Attributes:
        request: what is asked for.
        digest: SHA-256 of it, as it was signed.
        publisher: who signed it.
    """

    request: SessionRequest
    digest: bytes
    publisher: Peer

    @classmethod
    def of(cls, request: SessionRequest, payload: bytes, publisher: Peer) -> "SignedRequest":
        """The request that these bytes are, in the words of that publisher."""
        digest = hashlib.sha256(payload).digest()
        return cls(request=request, digest=digest, publisher=publisher)


def read_request(signed: session_pb2.Signed, identity: Identity) -> SignedRequest:
    """Verify, check and convert what a publisher asks for.

    Raises:
        IdentityMismatchError: the publisher did not sign it.
        InvalidInputError: it contradicts itself.
    """
    request = request_from_wire(signed.payload)
    publisher = identity.verify(Kind.REQUEST, signed, request.node_id)
    if identity.is_verifying and request.key is None:
        raise IdentityMismatchError(f"the request of {request.node_id} brings no key to seal to")
    return SignedRequest.of(request, signed.payload, publisher)


class RequestReader:
    """Reads requests that others signed, each once and while it is fresh.

    Args:
        identity: of this node.
        clock: seconds since 1970.
    """

    def __init__(self, identity: Identity, clock: Callable[[], float] = time.time) -> None:
        self._identity, self._clock = identity, clock
        self._seen: TTLCache[bytes, None] = TTLCache(_MAX_SEEN, 2 * MAX_AGE_S, clock)

    def read(self, signed: session_pb2.Signed) -> SignedRequest:
        """Verify, check and convert what a publisher asks for.

        Raises:
            RequestStaleError: it is too old or of the future, or was shown to this node before.
            FedAttnError: as `read_request`.
        """
        read = read_request(signed, self._identity)
        request, now = read.request, self._clock()
        if abs(now - request.issued_at_s) > MAX_AGE_S:
            raise RequestStaleError(
                f"the request of {request.node_id} was signed {now - request.issued_at_s:.0f} s "
                f"before this node's clock, at most {MAX_AGE_S:g} s either way are taken; set both "
                f"clocks, or someone shows an old request again"
            )
        if read.digest in self._seen:
            raise RequestStaleError(
                f"the request of {request.node_id} was shown to this node before; a request is "
                f"good for one session"
            )
        self._seen[read.digest] = None
        return read


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Terms that hold what everybody said, and the other members as they proved themselves.

    Attributes:
        terms: of the session.
        index: place of this node.
        members: the others by their places, if they are sealed to.
        passages: what contributors' spans are made of, by their places.
        rung: which of the request's rungs they are on.
    """

    terms: SessionTerms
    index: int
    members: dict[int, SealedMember]
    passages: dict[int, tuple[PassageSpan, ...]]
    rung: int

    def sealing(
        self, identity: Identity, own: KeyPair | None, content_key: ContentKey | None = None
    ) -> Sealing:
        """How frames of the session leave this member, and how it reads others'."""
        if not identity.is_verifying:
            return NoSealing()
        assert own is not None, "who verifies has a key of its own for each session"
        return SessionSealing(
            self.terms, self.index, identity, own, self.members, content_key=content_key
        )


def agree(
    start: aggregator_pb2.SessionStart,
    signed: SignedRequest,
    node: ParticipantNode,
    own: MemberStatement | None = None,
) -> Agreement:
    """Check and convert terms that this node is to take part in. May run in any thread.

    Args:
        start: as the aggregator laid the session out.
        signed: what its publisher asked for.
        node: this one.
        own: what it agreed to give; None if it is the publisher.

    Raises:
        InvalidRequestError, InvalidPlanError: they contradict themselves.
        SessionStateError: as `check_fit`.
        TermsRefusedError: they go beyond what was asked for or agreed to.
        IdentityMismatchError: a member is not who it is said to be.
    """
    terms = terms_from_wire(start.terms)
    if own is None:
        check_fit(terms, node, Role.PUBLISHER, signed.request.span_len)
    else:
        check_fit(terms, node, Role.CONTRIBUTOR, own.span_len)
    statements, members = read_statements(start.statements, node.identity, own)
    fingerprint = node.prefiller.model.fingerprint
    rung = check_agreement(terms, signed.request, signed.digest, statements, fingerprint)
    publisher = signed.request
    if publisher.key is not None:
        members[publisher.node_id] = SealedMember(signed.publisher, publisher.key)
    others = {
        index: members[member.node_id]
        for index, member in enumerate(terms.layout.members)
        if member.node_id != node.node_id and member.node_id in members
    }
    passages = {
        index: statements[member.node_id].passages
        for index, member in enumerate(terms.layout.contributors)
    }
    index = terms.layout.index_of(node.node_id)
    return Agreement(terms=terms, index=index, members=others, passages=passages, rung=rung)


def check_fit(terms: SessionTerms, node: ParticipantNode, role: Role, span_len: int) -> None:
    """Hold terms against this node.

    Raises:
        SessionStateError: they are of another model, of another prefix than this node computes, or
            larger than its window, or do not have this node with this role and span.
    """
    own = node.prefiller.shape
    if terms.shape != own:
        raise SessionStateError(f"the terms are for KV rows of {terms.shape}, expected {own}")
    if terms.layout.prefix_len not in {0, len(node.prefix)}:
        raise SessionStateError(
            f"the terms have {terms.layout.prefix_len} tokens of public prefix, expected 0 or "
            f"{len(node.prefix)}"
        )
    window = node.prefiller.model.max_positions
    if terms.layout.num_tokens > window:
        raise SessionStateError(
            f"the terms have {terms.layout.num_tokens} tokens, but the model's window is {window}"
        )
    _check_place(terms, node.node_id, role, span_len)


def _check_place(terms: SessionTerms, node_id: str, role: Role, span_len: int) -> None:
    own = next((member for member in terms.layout.members if member.node_id == node_id), None)
    if own is None or own.role is not role:
        raise SessionStateError(f"the terms do not have {node_id} as a {role.value}")
    if len(own.span) != span_len:
        raise SessionStateError(
            f"the terms give {node_id} {len(own.span)} tokens, expected {span_len}"
        )


def read_statements(
    messages: Iterable[session_pb2.Signed], identity: Identity, own: MemberStatement | None
) -> tuple[dict[str, MemberStatement], dict[str, SealedMember]]:
    """What contributors agreed to, by node id, and who the others of them are.

    Args:
        messages: as contributors signed them.
        identity: of this node.
        own: what this node agreed to; not verified where it says the same.

    Raises:
        IdentityMismatchError: one is not of whom it names.
        InvalidInputError: one contradicts itself.
        TermsRefusedError: there are two of one node.
    """
    statements: dict[str, MemberStatement] = {}
    members: dict[str, SealedMember] = {}
    for message in messages:
        statement = statement_from_wire(message.payload)
        if statement.node_id in statements:
            raise TermsRefusedError(f"the terms have two statements of {statement.node_id}")
        statements[statement.node_id] = statement
        if statement == own:
            continue
        peer = identity.verify(Kind.STATEMENT, message, statement.node_id)
        if statement.key is not None:
            members[statement.node_id] = SealedMember(peer, statement.key)
    return statements, members
