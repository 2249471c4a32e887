"""A session as it was opened: its members and what they agree on."""

import secrets
from dataclasses import dataclass, field

from fedattn.core.contexts import ContextSummary
from fedattn.core.costs import MemberCost
from fedattn.core.request import SessionRequest
from fedattn.core.spans import SessionLayout
from fedattn.core.terms import SessionTerms
from fedattn.wire.v1 import session_pb2
from services.aggregator.choosing import ExcludedNode
from services.aggregator.invitations import Acceptance
from services.aggregator.planning import plan_costs
from services.aggregator.registry import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedMember:
    """One member of an open session.

    Attributes:
        node: who it is.
        planned: what its part is foretold to take.
        context: counts of its private context when it was asked; None if it did not say.
        num_passages: passages of it that take part, as far as it says.
        text_len: tokens of them.
        token: lets this node, and no other, attach as that member.
    """

    node: Node
    planned: MemberCost
    context: ContextSummary | None = None
    num_passages: int = 0
    text_len: int = 0
    token: str = field(default_factory=lambda: secrets.token_hex(16))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSession:
    """A session all of whose lengths are known.

    Attributes:
        request: what the publisher asked for.
        terms: what all members agree on.
        members: in token order, the publisher last.
        statements: what contributors agreed to, signed, in token order.
        excluded: nodes that take no part.
    """

    request: SessionRequest
    terms: SessionTerms
    members: tuple[OpenedMember, ...]
    statements: tuple[session_pb2.Signed, ...] = ()
    excluded: tuple[ExcludedNode, ...] = ()


def open_members(
    request: SessionRequest, publisher: Node, accepted: list[Acceptance], layout: SessionLayout
) -> tuple[OpenedMember, ...]:
    """The members in token order, the publisher last."""
    nodes = [*(acceptance.node for acceptance in accepted), publisher]
    counts = [*((one.num_passages, one.text_len) for one in accepted), (0, 0)]
    costs = plan_costs(layout, publisher, request.max_new_tokens)
    return tuple(
        OpenedMember(
            node=node, planned=cost, context=node.context, num_passages=passages, text_len=tokens
        )
        for node, cost, (passages, tokens) in zip(nodes, costs, counts, strict=True)
    )
