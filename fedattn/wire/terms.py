"""The terms of a session on the wire. All that comes from it is checked here."""

from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import MAX_DEADLINE_S, MAX_MEMBERS
from fedattn.core.node_id import check_node_id
from fedattn.core.plans import SyncPlan
from fedattn.core.spans import Member, SessionLayout, Span
from fedattn.core.terms import SessionTerms
from fedattn.wire.convert import (
    compression_from_wire,
    compression_to_wire,
    require_range,
    shape_from_wire,
    shape_to_wire,
)
from fedattn.wire.enums import ROLES
from fedattn.wire.protocol import MAX_LIFETIME_S
from fedattn.wire.v1 import session_pb2

_CACHE_KEY_SIZE = 32


def terms_to_wire(terms: SessionTerms) -> session_pb2.SessionTerms:
    """The terms of a session as a message."""
    return session_pb2.SessionTerms(
        session_id=terms.session_id,
        shape=shape_to_wire(terms.shape),
        prefix_len=terms.layout.prefix_len,
        members=map(_member_to_wire, terms.layout.members),
        progress_timeout_s=terms.progress_timeout_s,
        min_participants=terms.min_participants,
        deadline_s=terms.deadline_s,
        timeline=terms.wants_timeline,
        sealed=terms.layout.publisher.is_sealed,
    )


def terms_from_wire(message: session_pb2.SessionTerms) -> SessionTerms:
    """Check and convert the terms of a session.

    Raises:
        InvalidRequestError: they contradict themselves, or a value is out of range.
        InvalidPlanError: a sync layer is out of range.
    """
    shape = shape_from_wire(message.shape)
    require_range("number of members", len(message.members), 1, MAX_MEMBERS)
    require_range("progress_timeout_s", message.progress_timeout_s, 1e-3, MAX_DEADLINE_S)
    require_range("deadline_s", message.deadline_s, 1e-3, MAX_DEADLINE_S)
    require_range("min_participants", message.min_participants, 0, MAX_MEMBERS)
    try:
        members = tuple(_member_from_wire(one, message.sealed) for one in message.members)
        layout = SessionLayout(
            num_layers=shape.num_layers, prefix_len=message.prefix_len, members=members
        )
    except ValueError as error:
        raise InvalidRequestError(f"session terms: {error}") from error
    for member in members:
        member.compression.check_shape(shape)
    return SessionTerms(
        session_id=message.session_id,
        layout=layout,
        shape=shape,
        deadline_s=message.deadline_s,
        progress_timeout_s=message.progress_timeout_s,
        min_participants=message.min_participants,
        wants_timeline=message.timeline,
    )


def _member_to_wire(member: Member) -> session_pb2.Member:
    return session_pb2.Member(
        node_id=member.node_id,
        role=ROLES.to_wire(member.role),
        span_start=member.span.start,
        span_stop=member.span.stop,
        sync_layers=member.plan.layers,
        compression=compression_to_wire(member.compression),
        cache_key=member.cache_key,
        is_cached_by_owner=member.is_cached_by_owner,
        is_cached_by_publisher=member.is_cached_by_publisher,
        cache_lifetime_s=member.cache_lifetime_s,
        position_offset=member.position_offset,
        num_withheld=member.num_withheld,
        answer_layers=member.answers.layers,
    )


def _member_from_wire(message: session_pb2.Member, is_sealed: bool) -> Member:
    node_id = check_node_id(message.node_id)
    require_range("size of cache_key", len(message.cache_key), 0, _CACHE_KEY_SIZE)
    require_range("cache_lifetime_s", message.cache_lifetime_s, 0, MAX_LIFETIME_S)
    span = Span(message.span_start, message.span_stop)
    require_range("num_withheld", message.num_withheld, 0, len(span))
    return Member(
        node_id=node_id,
        role=ROLES.from_wire(message.role),
        span=span,
        plan=SyncPlan(tuple(message.sync_layers)),
        compression=compression_from_wire(message.compression),
        is_cached_by_owner=message.is_cached_by_owner,
        is_cached_by_publisher=message.is_cached_by_publisher,
        cache_key=message.cache_key,
        cache_lifetime_s=message.cache_lifetime_s,
        position_offset=message.position_offset,
        num_withheld=message.num_withheld,
        is_sealed=is_sealed,
        answers=SyncPlan(tuple(message.answer_layers)),
    )
