"""The terms of a session, held against this node before a row is computed for them."""

from fedattn.core.errors import SessionStateError
from fedattn.core.terms import SessionTerms
from fedattn.wire.sessions import terms_from_wire
from fedattn.wire.v1 import session_pb2
from services.participant.node import ParticipantNode


def terms_for(message: session_pb2.SessionTerms, node: ParticipantNode) -> SessionTerms:
    """Check and convert terms that this node is to take part in.

    Raises:
        InvalidRequestError, InvalidPlanError: they contradict themselves.
        SessionStateError: they are of another model, or of another prefix than this node computes.
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
    return terms
