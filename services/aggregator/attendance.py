"""Without whom a session cannot go on: too few, a named node, the one that holds the prefix."""

from collections.abc import Sequence

from fedattn.core.errors import (
    FedAttnError,
    NoContributorsError,
    NotEnoughParticipantsError,
    NothingToGiveError,
)
from fedattn.core.request import SessionRequest
from fedattn.core.spans import PrefixMode
from services.aggregator.choosing import least_participants
from services.aggregator.registry import Node

_MAX_NAMED = 5
"""Nodes whose reasons an error tells."""


def require_enough(
    request: SessionRequest,
    num_contributors: int,
    failures: list[FedAttnError],
    departed: Sequence[FedAttnError] = (),
) -> None:
    """Raise unless as many participants are left as the publisher asks for.

    Args:
        request: of the publisher.
        num_contributors: those left.
        failures: of those that were asked; the first is raised.
        departed: of those that left of late, for the message.
    """
    needed = least_participants(request)
    if num_contributors + 1 >= needed:
        return
    if failures and all(isinstance(failure, NothingToGiveError) for failure in failures):
        raise NothingToGiveError(
            f"{num_contributors + 1} of {needed} required participants have something to give; "
            + "; ".join(str(failure) for failure in failures[:_MAX_NAMED])
        )
    if failures:
        raise failures[0]
    gone = "".join(f" ({error})" for error in departed[:_MAX_NAMED])
    if num_contributors == 0:
        raise NoContributorsError(
            f"no contributor with the publisher's model is joined{gone}; start one, or check the "
            f"participants list and the logs of the nodes"
        )
    raise NotEnoughParticipantsError(
        f"{num_contributors + 1} participants are there, {needed} are required{gone}; "
        f"start more or lower min_participants"
    )


def must_take_part(
    request: SessionRequest, node: Node, nodes: tuple[Node, ...], failure: FedAttnError
) -> bool:
    """Whether a session cannot go on without a node that does not take part.

    A named one that has nothing to give is left out and reported so: nothing of it is missing. A
    required one has to take part.
    """
    if node.node_id in request.options.require:
        return True
    is_named = bool(request.options.contributors) and not isinstance(failure, NothingToGiveError)
    return is_named or owns_prefix(request, node, nodes)


def owns_prefix(request: SessionRequest, node: Node, nodes: tuple[Node, ...]) -> bool:
    """Whether a node is the first contributor, where the span of that one holds the prefix."""
    return request.prefix.mode is PrefixMode.FIRST and node is nodes[0]
