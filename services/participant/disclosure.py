"""Before a session: how much text each node may give, and what it is told of the question."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from fedattn.core.errors import ContextTooLongError, FedAttnError
from fedattn.core.profile import context_tokens_of
from fedattn.core.request import SessionOptions
from fedattn.core.share import Hint
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.hints import read_node_key, seal_hint
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.node import ParticipantNode
from services.participant.query import Query

LEAST_NODE_TOKENS = 32
"""A node is asked for at least so many if the window has room, however many nodes there are."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """What goes with a request.

    Attributes:
        options: of the session, with the tokens that each node may give.
        node_tokens: the same number; the publisher keeps to it too.
        hint: what contributors are told; None for nothing.
        sealed: the same for each of them, by node id.
    """

    options: SessionOptions
    node_tokens: int
    hint: Hint | None
    sealed: dict[str, bytes]

    @property
    def digest(self) -> bytes:
        """Of the hint; empty without one."""
        return b"" if self.hint is None else self.hint.digest


async def prepare_disclosure(
    node: ParticipantNode, aggregator: AggregatorClient, query: Query, question_len: int
) -> Disclosure:
    """Look who may contribute, share the tokens among all, and seal what each is told.

    Args:
        node: the publisher.
        aggregator: where contributors are joined.
        query: what is asked.
        question_len: tokens of the question.

    Raises:
        ContextTooLongError: the question leaves no room for any text.
        FedAttnError: the aggregator cannot be reached.
    """
    hint = query.hint
    nodes = await aggregator.list_nodes(with_keys=hint is not None)
    peers = _peers(node, query.options, nodes.nodes)
    num_nodes = len(peers) + (not node.context.summary.is_empty)
    node_tokens = _share_tokens(node, query, max(1, num_nodes), question_len)
    return Disclosure(
        options=replace(query.options, node_tokens=node_tokens),
        node_tokens=node_tokens,
        hint=hint,
        sealed={} if hint is None else _seal(node, hint, peers),
    )


def _peers(
    node: ParticipantNode, options: SessionOptions, nodes: Sequence[pb.NodeInfo]
) -> list[pb.NodeInfo]:
    """Nodes that may contribute."""
    own = node.prefiller.model.fingerprint
    named = set(options.contributors)
    return [
        other
        for other in nodes
        if other.node_id != node.node_id
        and other.model_fingerprint == own
        and (not named or other.node_id in named)
    ]


def _share_tokens(node: ParticipantNode, query: Query, num_nodes: int, question_len: int) -> int:
    """Most tokens of one node: what was asked for, or an equal share of what suits the model."""
    window, num_new = node.prefiller.model.max_positions, query.sampling.max_new_tokens
    room = window - len(node.prefix) - question_len - num_new
    if room < num_nodes:
        raise ContextTooLongError(
            f"the question has {question_len} tokens, the prefix {len(node.prefix)}, and {num_new} "
            f"may be decoded, which leaves {room} of the model's window of {window} for the texts "
            f"of {num_nodes} nodes; shorten the question or ask for fewer tokens"
        )
    most = room // num_nodes
    asked = query.options.node_tokens
    if asked is not None:
        return min(asked, most)
    suits = query.context_tokens or context_tokens_of(node.profile)
    return min(most, max(LEAST_NODE_TOKENS, suits // num_nodes))


def _seal(node: ParticipantNode, hint: Hint, peers: Sequence[pb.NodeInfo]) -> dict[str, bytes]:
    """The hint for each node whose key can be believed; others decline for want of it."""
    sealed: dict[str, bytes] = {}
    for peer in peers:
        try:
            key = read_node_key(peer.key, peer.node_id, node.identity)
            sealed[peer.node_id] = seal_hint(hint, key, node.node_id)
        except (FedAttnError, ValueError) as error:
            log.warning("not_told", node=peer.node_id[:64], error=str(error))
    return sealed
