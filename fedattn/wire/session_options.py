"""What a query says about its session, on the wire. All that comes from it is checked here."""

from fedattn.core.budget import ByteBudget
from fedattn.core.limits import MAX_BUDGET_BYTES, MAX_DEADLINE_S, MAX_MEMBERS
from fedattn.core.request import (
    PublicPrefix,
    SessionOptions,
)
from fedattn.wire.convert import require_range
from fedattn.wire.enums import EXCHANGES, PREFIX_MODES, SHARES
from fedattn.wire.v1 import session_pb2

MAX_TOKENS = 1 << 24
_DIGEST_SIZE = 32


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
    require_range("size of the prefix digest", len(message.digest), _DIGEST_SIZE, _DIGEST_SIZE)
    return PublicPrefix(
        mode=PREFIX_MODES.from_wire(message.mode),
        num_tokens=message.num_tokens,
        digest=message.digest,
    )


def budget_to_wire(budget: ByteBudget) -> session_pb2.ByteBudget:
    """A byte budget as a message."""
    return session_pb2.ByteBudget(kv_bytes=budget.kv_bytes or 0, link_bytes=budget.link_bytes or 0)


def budget_from_wire(message: session_pb2.ByteBudget) -> ByteBudget:
    """Check and convert a byte budget.

    Raises:
        InvalidRequestError: a value is out of range.
    """
    require_range("kv_bytes of the budget", message.kv_bytes, 0, MAX_BUDGET_BYTES)
    require_range("link_bytes of the budget", message.link_bytes, 0, MAX_BUDGET_BYTES)
    return ByteBudget(kv_bytes=message.kv_bytes or None, link_bytes=message.link_bytes or None)


def options_to_wire(options: SessionOptions) -> session_pb2.SessionOptions:
    """What a query says about its session, as a message."""
    return session_pb2.SessionOptions(
        contributors=options.contributors,
        budget=None if options.budget is None else budget_to_wire(options.budget),
        prefix=PREFIX_MODES.to_wire(options.prefix),
        min_participants=options.min_participants,
        deadline_s=options.deadline_s,
        no_reuse=not options.reuse,
        timeline=options.wants_timeline,
        independent=options.independent,
        subject=options.subject,
        purpose=options.purpose,
        share=SHARES.to_wire(options.share),
        node_tokens=options.node_tokens or 0,
        context_tokens=options.context_tokens or 0,
        require=options.require,
        without=options.without,
        exchange=EXCHANGES.to_wire(options.exchange),
    )


def options_from_wire(message: session_pb2.SessionOptions) -> SessionOptions:
    """Check and convert what a query says about its session.

    Raises:
        InvalidRequestError: a value is out of range, or two contradict each other.
    """
    require_range("deadline_s", message.deadline_s, 1e-3, MAX_DEADLINE_S)
    require_range("min_participants", message.min_participants, 1, MAX_MEMBERS)
    require_range("number of contributors", len(message.contributors), 0, MAX_MEMBERS - 1)
    require_range("number of required nodes", len(message.require), 0, MAX_MEMBERS - 1)
    require_range("number of nodes left out", len(message.without), 0, MAX_MEMBERS - 1)
    require_range("node_tokens", message.node_tokens, 0, MAX_TOKENS)
    require_range("context_tokens", message.context_tokens, 0, MAX_TOKENS)
    return SessionOptions(
        contributors=tuple(message.contributors),
        budget=budget_from_wire(message.budget) if message.HasField("budget") else None,
        prefix=PREFIX_MODES.from_wire(message.prefix),
        min_participants=message.min_participants,
        deadline_s=message.deadline_s,
        reuse=not message.no_reuse,
        wants_timeline=message.timeline,
        independent=message.independent,
        subject=message.subject,
        purpose=message.purpose,
        share=SHARES.from_wire(message.share),
        node_tokens=message.node_tokens or None,
        context_tokens=message.context_tokens or None,
        require=tuple(message.require),
        without=tuple(message.without),
        exchange=EXCHANGES.from_wire(message.exchange),
    )
