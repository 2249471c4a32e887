"""Choosing the contributors of a session from the nodes that are joined."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedattn.core.contexts import ContextSummary
from fedattn.core.errors import (
    FedAttnError,
    InvalidRequestError,
    ModelMismatchError,
    NotEnoughParticipantsError,
    UnknownParticipantError,
)
from fedattn.core.limits import MAX_MEMBERS
from fedattn.core.request import SessionRequest
from fedattn.core.spans import PrefixMode
from services.aggregator.registry import Node, NodeRegistry
from services.aggregator.standing import Standing


@dataclass(frozen=True, slots=True)
class ExcludedNode:
    """A node that takes no part, why, and what it said of its context."""

    node_id: str
    reason: FedAttnError
    context: ContextSummary | None


@dataclass(frozen=True, slots=True)
class Choice:
    """Contributors in token order, and nodes left out because they do not fit."""

    chosen: tuple[Node, ...]
    excluded: tuple[ExcludedNode, ...]


def least_participants(request: SessionRequest) -> int:
    """How many must take part, the publisher included."""
    least = 2 if request.prefix.mode is PrefixMode.FIRST else 1  # somebody holds the prefix
    return max(request.options.min_participants, least)


def choose_contributors(
    request: SessionRequest, publisher: Node, registry: NodeRegistry, standing: Standing
) -> Choice:
    """The nodes to invite.

    A node that was late the last time comes after all others. One that was so twice in a row is
    left out for a while, unless the request names it, or too few are there without those that rest:
    nobody is worse off for asking then.

    Raises:
        UnknownParticipantError: a named node is not joined.
        ModelMismatchError, InvalidRequestError: a named node does not fit the publisher.
    """
    if request.options.contributors:
        named = (_find(name, publisher, registry) for name in request.options.contributors)
        return Choice(tuple(_require_fit(node, publisher, request) for node in named), ())
    joined = sorted(registry.all(), key=lambda node: standing.is_late(node.node_id))
    choice = _choose_all(request, publisher, joined, standing.pause_of)
    if len(choice.chosen) + 1 < least_participants(request):
        return _choose_all(request, publisher, joined, lambda _: "")
    return choice


def _choose_all(
    request: SessionRequest,
    publisher: Node,
    joined: Sequence[Node],
    pause_of: Callable[[str], str],
) -> Choice:
    chosen: list[Node] = []
    excluded: list[ExcludedNode] = []
    for node in joined:
        if node is publisher:
            continue
        reason = _incompatibility(node, publisher, request)
        if reason is None and len(chosen) == MAX_MEMBERS - 1:
            reason = InvalidRequestError(f"a session has {MAX_MEMBERS} members")
        if reason is None and (pause := pause_of(node.node_id)):
            reason = NotEnoughParticipantsError(pause)
        if reason is None:
            chosen.append(node)
        elif len(excluded) < MAX_MEMBERS:
            excluded.append(ExcludedNode(node.node_id, reason, node.context))
    return Choice(tuple(chosen), tuple(excluded))


def _find(node_id: str, publisher: Node, registry: NodeRegistry) -> Node:
    found = registry.find(node_id)
    if found is None or found is publisher:
        known = [node.node_id for node in registry.all() if node is not publisher]
        raise UnknownParticipantError(
            f"contributor {node_id[:64]!r} is not joined; joined are: {', '.join(known) or 'none'}"
        )
    return found


def _require_fit(node: Node, publisher: Node, request: SessionRequest) -> Node:
    reason = _incompatibility(node, publisher, request)
    if reason is not None:
        raise reason
    return node


def _incompatibility(node: Node, publisher: Node, request: SessionRequest) -> FedAttnError | None:
    """Why a node cannot take part in a publisher's session, if so."""
    if node.fingerprint != publisher.fingerprint or node.shape != publisher.shape:
        return ModelMismatchError(
            f"{node.node_id} runs model {node.join.capabilities.model_name} "
            f"({node.fingerprint[:12]}), the publisher {publisher.join.capabilities.model_name} "
            f"({publisher.fingerprint[:12]}); all nodes of a session need the same model"
        )
    codec = request.compression.codec
    if not node.supports(codec.codec_id):
        return InvalidRequestError(
            f"{node.node_id} does not know codec {codec.name}; upgrade it or choose another codec"
        )
    return None
