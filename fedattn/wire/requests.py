"""What members ask for and agree to, and sign, on the wire. All that comes from it is checked here.

No signature is verified here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import DecodeError

from fedattn.core.agreement import MemberStatement, PassageSpan
from fedattn.core.contexts import ContextSummary
from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import MAX_MEMBERS
from fedattn.core.node_id import check_node_id
from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.core.request import (
    MAX_COARSER,
    NONCE_SIZE,
    Kem,
    PublicKey,
    SessionRequest,
)
from fedattn.core.reuse import MAX_VERSION_SIZE
from fedattn.wire.contexts import context_from_wire, context_to_wire
from fedattn.wire.convert import (
    compression_from_wire,
    compression_to_wire,
    require_range,
)
from fedattn.wire.enums import KEMS
from fedattn.wire.protocol import MAX_LIFETIME_S, MAX_PUBLISHER_KEYS, MAX_SEALED_HINT_SIZE
from fedattn.wire.session_options import (
    MAX_TOKENS,
    options_from_wire,
    options_to_wire,
    prefix_from_wire,
    prefix_to_wire,
)
from fedattn.wire.v1 import aggregator_pb2, session_pb2

MAX_PASSAGES = 4096
MAX_PASSAGE_NUMBER = 1 << 53
MAX_TIME_S = 1e11
"""Seconds since 1970 that a message may name."""
LEAST_KEEP_RATIO = 1e-9
KEY_SIZES = {Kem.X25519: 32, Kem.MLKEM768_X25519: 1184 + 32}
P = TypeVar("P", session_pb2.SessionRequest, session_pb2.MemberStatement)
_DIGEST_SIZE = 32


def check_cached_keys(keys: Sequence[bytes], most: int) -> None:
    """Hold cache keys from the wire to their number and size.

    Raises:
        InvalidRequestError: there are too many, or one is no key.
    """
    require_range("number of cached_keys", len(keys), 0, most)
    for key in keys:
        require_range("size of a cached key", len(key), _DIGEST_SIZE, _DIGEST_SIZE)


def key_to_wire(key: PublicKey | None) -> session_pb2.PublicKey | None:
    """A public key as a message; absent without one."""
    if key is None:
        return None
    return session_pb2.PublicKey(kem=KEMS.to_wire(key.kem), data=key.data)


def key_from_wire(message: session_pb2.PublicKey) -> PublicKey:
    """Check and convert a public key.

    Raises:
        InvalidRequestError: it is of no kind that is known here, or of another size.
    """
    kem = KEMS.from_wire(message.kem)
    require_range("size of a public key", len(message.data), KEY_SIZES[kem], KEY_SIZES[kem])
    return PublicKey(kem=kem, data=message.data)


def request_to_wire(request: SessionRequest) -> session_pb2.SessionRequest:
    """What a publisher asks for, as a message."""
    return session_pb2.SessionRequest(
        node_id=request.node_id,
        span_len=request.span_len,
        prefix=prefix_to_wire(request.prefix),
        contributor_sync_layers=request.plans.contributors.layers,
        publisher_sync_layers=request.plans.publisher.layers,
        compression=compression_to_wire(request.compression),
        coarser=map(compression_to_wire, request.coarser),
        max_new_tokens=request.max_new_tokens,
        options=options_to_wire(request.options),
        nonce=request.nonce,
        issued_at_s=request.issued_at_s,
        key=key_to_wire(request.key),
        hint_digest=request.hint_digest,
        asked_sync_layers=request.plans.asked.layers,
    )


def request_from_wire(payload: bytes) -> SessionRequest:
    """Parse, check and convert what a publisher asks for.

    Raises:
        InvalidInputError: names the field, what was expected and what came.
    """
    message = _parse(session_pb2.SessionRequest, payload, "request of a session")
    require_range("span_len", message.span_len, 1, MAX_TOKENS)
    require_range("max_new_tokens", message.max_new_tokens, 1, MAX_TOKENS)
    require_range("size of the nonce", len(message.nonce), NONCE_SIZE, NONCE_SIZE)
    require_range("issued_at_s", message.issued_at_s, 0, MAX_TIME_S)
    require_range("number of coarser", len(message.coarser), 0, MAX_COARSER)
    options, prefix = options_from_wire(message.options), prefix_from_wire(message.prefix)
    if prefix.mode is not options.prefix:
        raise InvalidRequestError(
            f"prefix mode {prefix.mode.value} differs from that of the options, "
            f"{options.prefix.value}"
        )
    return SessionRequest(
        node_id=check_node_id(message.node_id),
        span_len=message.span_len,
        prefix=prefix,
        plans=RolePlans(
            contributors=SyncPlan(tuple(message.contributor_sync_layers)),
            publisher=SyncPlan(tuple(message.publisher_sync_layers)),
            asked=SyncPlan(tuple(message.asked_sync_layers)),
        ),
        compression=compression_from_wire(message.compression),
        coarser=tuple(map(compression_from_wire, message.coarser)),
        max_new_tokens=message.max_new_tokens,
        options=options,
        nonce=message.nonce,
        issued_at_s=message.issued_at_s,
        key=key_from_wire(message.key) if message.HasField("key") else None,
        hint_digest=message.hint_digest,
    )


def statement_to_wire(statement: MemberStatement) -> session_pb2.MemberStatement:
    """What a contributor agrees to, as a message."""
    return session_pb2.MemberStatement(
        session_id=statement.session_id,
        request_digest=statement.request_digest,
        node_id=statement.node_id,
        span_len=statement.span_len,
        max_keep_ratio=statement.max_keep_ratio,
        can_score=statement.can_score,
        is_approved=statement.is_approved,
        num_withheld=statement.num_withheld,
        context_version=statement.context_version,
        cache_lifetime_s=statement.cache_lifetime_s,
        key=key_to_wire(statement.key),
        passages=[
            session_pb2.Passage(number=one.number, num_tokens=one.num_tokens)
            for one in statement.passages
        ],
        fit=statement.fit,
        is_asked=statement.is_asked,
    )


def statement_from_wire(payload: bytes) -> MemberStatement:
    """Parse, check and convert what a contributor agrees to.

    Raises:
        InvalidInputError: names the field, what was expected and what came.
    """
    message = _parse(session_pb2.MemberStatement, payload, "statement of a member")
    require_range(
        "size of the request digest", len(message.request_digest), _DIGEST_SIZE, _DIGEST_SIZE
    )
    require_range("span_len", message.span_len, 0, MAX_TOKENS)
    require_range("num_withheld", message.num_withheld, 0, max(0, message.span_len - 1))
    require_range("size of context_version", len(message.context_version), 0, MAX_VERSION_SIZE)
    require_range("max_keep_ratio", message.max_keep_ratio, LEAST_KEEP_RATIO, 1)
    require_range("cache_lifetime_s", message.cache_lifetime_s, 0, MAX_LIFETIME_S)
    require_range("fit", message.fit, 0, 1)
    return MemberStatement(
        session_id=message.session_id,
        request_digest=message.request_digest,
        node_id=check_node_id(message.node_id),
        span_len=message.span_len,
        max_keep_ratio=message.max_keep_ratio,
        can_score=message.can_score,
        is_approved=message.is_approved,
        num_withheld=message.num_withheld,
        context_version=message.context_version,
        cache_lifetime_s=message.cache_lifetime_s,
        key=key_from_wire(message.key) if message.HasField("key") else None,
        passages=_passages_from_wire(message),
        fit=message.fit,
        is_asked=message.is_asked,
    )


def _passages_from_wire(message: session_pb2.MemberStatement) -> tuple[PassageSpan, ...]:
    require_range("number of passages", len(message.passages), 0, MAX_PASSAGES)
    for one in message.passages:
        require_range("number of a passage", one.number, 1, MAX_PASSAGE_NUMBER)
        require_range("tokens of a passage", one.num_tokens, 1, message.span_len)
    total = sum(one.num_tokens for one in message.passages)
    require_range("tokens of all passages", total, 0, message.span_len)
    return tuple(PassageSpan(one.number, one.num_tokens) for one in message.passages)


def _parse(kind: type[P], payload: bytes, what: str) -> P:
    """A message from its bytes; of those that come signed inside another."""
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        raise InvalidRequestError(f"{what}: its bytes are no such message") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a publisher opens a session with: its request, and what is for the aggregator alone.

    Attributes:
        signed: the request as it was signed, to be shown to contributors.
        request: the same, read.
        node_token: from the aggregator, proves that the caller is that node.
        cached_keys: cache keys whose rows the publisher has cached.
        context: counts of the publisher's own context; None if it does not say.
        hints: what contributors are told of the question, by node id, sealed to each.
    """

    signed: session_pb2.Signed
    request: SessionRequest
    node_token: str
    cached_keys: frozenset[bytes] = frozenset()
    context: ContextSummary | None = None
    hints: Mapping[str, bytes] = field(default_factory=dict)


def opening_to_wire(opening: Opening) -> aggregator_pb2.OpenSessionRequest:
    """What a publisher opens a session with, as a message."""
    return aggregator_pb2.OpenSessionRequest(
        request=opening.signed,
        node_token=opening.node_token,
        cached_keys=sorted(opening.cached_keys),
        context=None if opening.context is None else context_to_wire(opening.context),
        hints=[
            aggregator_pb2.SealedHint(node_id=node_id, sealed=sealed)
            for node_id, sealed in opening.hints.items()
        ],
    )


def opening_from_wire(message: aggregator_pb2.OpenSessionRequest) -> Opening:
    """Check and convert what a publisher opens a session with; no signature is verified here.

    Raises:
        InvalidInputError: names the field, what was expected and what came.
    """
    check_cached_keys(message.cached_keys, MAX_PUBLISHER_KEYS)
    require_range("number of hints", len(message.hints), 0, MAX_MEMBERS - 1)
    for hint in message.hints:
        require_range("size of a hint", len(hint.sealed), 1, MAX_SEALED_HINT_SIZE)
    return Opening(
        signed=message.request,
        request=request_from_wire(message.request.payload),
        node_token=message.node_token,
        cached_keys=frozenset(message.cached_keys),
        context=context_from_wire(message.context) if message.HasField("context") else None,
        hints={check_node_id(hint.node_id): hint.sealed for hint in message.hints},
    )
