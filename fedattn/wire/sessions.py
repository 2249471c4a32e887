"""Requests for sessions and their terms on the wire. Everything from the wire is checked here."""

from collections.abc import Sequence

from fedattn.core.budget import ByteBudget
from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import MAX_BUDGET_BYTES, MAX_DEADLINE_S, MAX_MEMBERS
from fedattn.core.node_id import check_node_id
from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.core.request import PublicPrefix, SessionOptions, SessionRequest
from fedattn.core.spans import Member, SessionLayout, Span
from fedattn.core.terms import SessionTerms
from fedattn.wire.contexts import context_from_wire, context_to_wire
from fedattn.wire.convert import (
    compression_from_wire,
    compression_to_wire,
    require_range,
    shape_from_wire,
    shape_to_wire,
)
from fedattn.wire.enums import PREFIX_MODES, ROLES
from fedattn.wire.protocol import MAX_LIFETIME_S, MAX_PUBLISHER_KEYS
from fedattn.wire.v1 import aggregator_pb2, session_pb2

MAX_TOKENS = 1 << 24
_KEY_SIZE = 32


def prefix_to_wire(prefix: PublicPrefix) -> session_pb2.PublicPrefix:
    """A public prefix as a message."""
    return session_pb2.PublicPrefix(
        mode=PREFIX_MODES.to_wire(prefix.mode), num_tokens=prefix.num_tokens, digest=prefix.digest
    )


def prefix_from_wire(message: session_pb2.PublicPrefix) -> PublicPrefix:
    """Check and convert a public prefix.

    Raises:
        InvalidRequestError: a value is out of range.
    """
    require_range("prefix tokens", message.num_tokens, 0, MAX_TOKENS)
    require_range("size of the prefix digest", len(message.digest), _KEY_SIZE, _KEY_SIZE)
    return PublicPrefix(
        mode=PREFIX_MODES.from_wire(message.mode),
        num_tokens=message.num_tokens,
        digest=message.digest,
    )


def budget_to_wire(budget: ByteBudget) -> session_pb2.ByteBudget:
    """A byte budget as a message."""
    return session_pb2.ByteBudget(
        kv_bytes=budget.kv_bytes or 0,
        link_bytes=budget.link_bytes or 0,
        may_choose_codec=budget.may_choose_codec,
    )


def budget_from_wire(message: session_pb2.ByteBudget) -> ByteBudget:
    """Check and convert a byte budget.

    Raises:
        InvalidRequestError: a value is out of range.
    """
    require_range("kv_bytes of the budget", message.kv_bytes, 0, MAX_BUDGET_BYTES)
    require_range("link_bytes of the budget", message.link_bytes, 0, MAX_BUDGET_BYTES)
    return ByteBudget(
        kv_bytes=message.kv_bytes or None,
        link_bytes=message.link_bytes or None,
        may_choose_codec=message.may_choose_codec,
    )


def options_to_wire(options: SessionOptions) -> session_pb2.SessionOptions:
    """What a query says about its session, as a message."""
    return session_pb2.SessionOptions(
        contributors=options.contributors,
        compression=compression_to_wire(options.compression),
        budget=None if options.budget is None else budget_to_wire(options.budget),
        prefix=PREFIX_MODES.to_wire(options.prefix),
        min_participants=options.min_participants,
        deadline_s=options.deadline_s,
        no_reuse=not options.reuse,
        timeline=options.wants_timeline,
        independent=options.independent,
    )


def options_from_wire(message: session_pb2.SessionOptions) -> SessionOptions:
    """Check and convert what a query says about its session.

    Raises:
        InvalidRequestError: a value is out of range, or two contradict each other.
    """
    require_range("deadline_s", message.deadline_s, 1e-3, MAX_DEADLINE_S)
    require_range("min_participants", message.min_participants, 1, MAX_MEMBERS)
    require_range("number of contributors", len(message.contributors), 0, MAX_MEMBERS - 1)
    return SessionOptions(
        contributors=tuple(message.contributors),
        compression=compression_from_wire(message.compression),
        budget=budget_from_wire(message.budget) if message.HasField("budget") else None,
        prefix=PREFIX_MODES.from_wire(message.prefix),
        min_participants=message.min_participants,
        deadline_s=message.deadline_s,
        reuse=not message.no_reuse,
        wants_timeline=message.timeline,
        independent=message.independent,
    )


def check_cached_keys(keys: Sequence[bytes], most: int) -> None:
    """Hold cache keys from the wire to their number and size.

    Raises:
        InvalidRequestError: there are too many, or one is no key.
    """
    require_range("number of cached_keys", len(keys), 0, most)
    for key in keys:
        require_range("size of a cached key", len(key), _KEY_SIZE, _KEY_SIZE)


def session_request_to_wire(request: SessionRequest) -> aggregator_pb2.OpenSessionRequest:
    """A publisher's request as a message."""
    return aggregator_pb2.OpenSessionRequest(
        node_id=request.node_id,
        node_token=request.node_token,
        span_len=request.span_len,
        prefix=prefix_to_wire(request.prefix),
        contributor_sync_layers=request.plans.contributors.layers,
        publisher_sync_layers=request.plans.publisher.layers,
        max_new_tokens=request.max_new_tokens,
        cached_keys=sorted(request.cached_keys),
        options=options_to_wire(request.options),
        context=None if request.context is None else context_to_wire(request.context),
    )


def session_request_from_wire(message: aggregator_pb2.OpenSessionRequest) -> SessionRequest:
    """Check and convert a publisher's request.

    Raises:
        InvalidInputError: names the field, what was expected and what came.
    """
    require_range("span_len", message.span_len, 1, MAX_TOKENS)
    require_range("max_new_tokens", message.max_new_tokens, 1, MAX_TOKENS)
    check_cached_keys(message.cached_keys, MAX_PUBLISHER_KEYS)
    options, prefix = options_from_wire(message.options), prefix_from_wire(message.prefix)
    if prefix.mode is not options.prefix:
        raise InvalidRequestError(
            f"prefix mode {prefix.mode.value} differs from that of the options, "
            f"{options.prefix.value}"
        )
    return SessionRequest(
        node_id=message.node_id,
        node_token=message.node_token,
        span_len=message.span_len,
        prefix=prefix,
        plans=RolePlans(
            contributors=SyncPlan(tuple(message.contributor_sync_layers)),
            publisher=SyncPlan(tuple(message.publisher_sync_layers)),
        ),
        max_new_tokens=message.max_new_tokens,
        cached_keys=frozenset(message.cached_keys),
        options=options,
        context=context_from_wire(message.context) if message.HasField("context") else None,
    )


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
        members = tuple(map(_member_from_wire, message.members))
        layout = SessionLayout(
            num_layers=shape.num_layers, prefix_len=message.prefix_len, members=members
        )
    except ValueError as error:
        raise InvalidRequestError(f"session terms: {error}") from error
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
    )


def _member_from_wire(message: session_pb2.Member) -> Member:
    node_id = check_node_id(message.node_id)
    require_range("size of cache_key", len(message.cache_key), 0, _KEY_SIZE)
    require_range("cache_lifetime_s", message.cache_lifetime_s, 0, MAX_LIFETIME_S)
    return Member(
        node_id=node_id,
        role=ROLES.from_wire(message.role),
        span=Span(message.span_start, message.span_stop),
        plan=SyncPlan(tuple(message.sync_layers)),
        compression=compression_from_wire(message.compression),
        is_cached_by_owner=message.is_cached_by_owner,
        is_cached_by_publisher=message.is_cached_by_publisher,
        cache_key=message.cache_key,
        cache_lifetime_s=message.cache_lifetime_s,
        position_offset=message.position_offset,
    )
