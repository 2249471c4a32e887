"""The terms of a session, held against this node before a row is computed for them."""

from fedattn.core.errors import SessionStateError
from fedattn.core.spans import Role
from fedattn.core.terms import SessionTerms
from fedattn.wire.sessions import terms_from_wire
from fedattn.wire.v1 import session_pb2
from services.participant.node import ParticipantNode


def terms_for(
    message: session_pb2.SessionTerms, node: ParticipantNode, role: Role, span_len: int
) -> SessionTerms:
    """Check and convert terms that this node is to take part in.

    Args:
        message: from the aggregator.
        node: this one.
        role: what it is to do.
        span_len: tokens of its span.

    Raises:
        InvalidRequestError, InvalidPlanError: they contradict themselves.
        SessionStateError: they are of another model, of another prefix than this node computes, or
            do not have this node with this role and span.
    """
    terms = terms_from_wire(message)
    own = node.prefiller.shape
    if terms.shape != own:
        raise SessionStateError(f"the terms are for KV rows of {terms.shape}, expected {own}")
    if terms.layout.prefix_len not in {0, len(node.prefix)}:
        raise SessionStateError(
            f"the terms have {terms.layout.prefix_len} tokens of public prefix, expected 0 or "
            f"{len(node.prefix)}"
        )
    _check_place(terms, node.node_id, role, span_len)
    return terms


def _check_place(terms: SessionTerms, node_id: str, role: Role, span_len: int) -> None:
    own = next((member for member in terms.layout.members if member.node_id == node_id), None)
    if own is None or own.role is not role:
        raise SessionStateError(f"the terms do not have {node_id} as a {role.value}")
    if len(own.span) != span_len:
        raise SessionStateError(
            f"the terms give {node_id} {len(own.span)} tokens, expected {span_len}"
        )
