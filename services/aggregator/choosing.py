"""Choosing the contributors of a session from the nodes that are joined."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from fedattn.core.contexts import ContextSummary
from fedattn.core.errors import (
    FedAttnError,
    InvalidRequestError,
    ModelMismatchError,
    NotEnoughParticipantsError,
    SessionAbortedError,
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
        UnknownParticipantError: a named or required node is not joined.
        ParticipantDepartedError: likewise, but it was within the last hour.
        ModelMismatchError, InvalidRequestError: it does not fit the publisher.
    """
    options = request.options
    names = options.contributors or tuple(
        name for name in options.require if name != publisher.node_id
    )
    named = [_find(name, publisher, registry) for name in names]
    for node in named:
        _require_fit(node, publisher, request)
    if options.contributors:
        return Choice(tuple(node for node in named if node.node_id not in options.without), ())
    joined = sorted(registry.all(), key=lambda node: standing.is_late(node.node_id))
    choice = _choose_all(request, publisher, joined, standing.pause_of)
    if len(choice.chosen) + 1 < least_participants(request):
        choice = _choose_all(request, publisher, joined, lambda _: "")
    left = _departed(publisher, registry)
    return replace(choice, excluded=(*choice.excluded, *left)[:MAX_MEMBERS])


def _choose_all(
    request: SessionRequest,
    publisher: Node,
    joined: Sequence[Node],
    pause_of: Callable[[str], str],
) -> Choice:
    options = request.options
    chosen: list[Node] = []
    excluded: list[ExcludedNode] = []
    for node in sorted(joined, key=lambda node: node.node_id not in options.require):
        if node is publisher:
            continue
        reason = _incompatibility(node, publisher, request)
        if reason is None and node.node_id in options.without:
            reason = SessionAbortedError(f"{node.node_id}: the first try lost it")
        if reason is None and len(chosen) == MAX_MEMBERS - 1:
            reason = InvalidRequestError(f"a session has {MAX_MEMBERS} members")
        if reason is None and node.node_id not in options.require:
            pause = pause_of(node.node_id)
            reason = NotEnoughParticipantsError(pause) if pause else None
        if reason is None:
            chosen.append(node)
        else:
            excluded.append(ExcludedNode(node.node_id, reason, node.context))
    return Choice(tuple(sorted(chosen, key=joined.index)), tuple(excluded))


def _departed(publisher: Node, registry: NodeRegistry) -> Iterator[ExcludedNode]:
    """Nodes of the publisher's model that left of late: the answer misses what they know."""
    for departure in registry.departures.all():
        node = departure.node
        error = registry.departures.error_of(node.node_id)
        if error is not None and _runs_model_of(node, publisher):
            yield ExcludedNode(node.node_id, error, node.context)


def _find(node_id: str, publisher: Node, registry: NodeRegistry) -> Node:
    found = registry.find(node_id)
    if found is None and (departed := registry.departures.error_of(node_id)) is not None:
        raise departed
    if found is publisher:
        raise UnknownParticipantError(
            f"{node_id[:64]!r} asks here and cannot be a contributor too; name others, or another "
            f"publisher"
        )
    if found is None:
        known = [node.node_id for node in registry.all() if node is not publisher]
        raise UnknownParticipantError(
            f"contributor {node_id[:64]!r} is not joined; joined are: {', '.join(known) or 'none'}"
        )
    return found


def _require_fit(node: Node, publisher: Node, request: SessionRequest) -> None:
    reason = _incompatibility(node, publisher, request)
    if reason is not None:
        raise reason


def _runs_model_of(node: Node, publisher: Node) -> bool:
    return node.fingerprint == publisher.fingerprint and node.shape == publisher.shape


def _incompatibility(node: Node, publisher: Node, request: SessionRequest) -> FedAttnError | None:
    """Why a node cannot take part in a publisher's session, if so."""
    if not _runs_model_of(node, publisher):
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
