"""Before a session: how much text each node may give, and what it is told of the question."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import structlog

from fedattn.core.asked_costs import exchange_times
from fedattn.core.errors import ContextTooLongError, FedAttnError
from fedattn.core.limits import MAX_MEMBERS
from fedattn.core.profile import context_tokens_of
from fedattn.core.request import Exchange, SessionOptions
from fedattn.core.share import Hint
from fedattn.core.spans import PrefixMode, build_layout
from fedattn.core.token_budget import node_tokens
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.hints import read_node_key, seal_hint
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.node import ParticipantNode
from services.participant.query import Query

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """What goes with a request.

    Attributes:
        options: of the session, with the tokens that contributors may give.
        node_tokens: most tokens of the publisher's own text.
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
    fingerprint = node.prefiller.model.fingerprint
    nodes = await aggregator.list_nodes(
        node.listing(with_keys=hint is not None, fingerprint=fingerprint)
    )
    peers = _peers(node, query.options, nodes.nodes)
    with_text = [one for one in peers if one.context.num_tokens or not one.HasField("context")]
    budget = _TokenBudget.of(node, query, max(1, len(with_text)), question_len)
    options = replace(query.options, node_tokens=budget.each, context_tokens=budget.contributors)
    texts = [min(one.context.num_tokens, budget.each) for one in with_text]
    exchange = _choose_exchange(node, query, texts, question_len + budget.own)
    return Disclosure(
        options=replace(options, exchange=exchange),
        node_tokens=budget.own,
        hint=hint,
        sealed={} if hint is None else await node.threads.run(lambda: _seal(node, hint, peers)),
    )


def _choose_exchange(
    node: ParticipantNode, query: Query, texts: Sequence[int], span_len: int
) -> Exchange:
    """Exchange `auto` over a link that the query states: what takes less time.

    Nodes whose policy has one of the two only decline the other. Without a link it stays `auto`,
    which each node's policy settles.

    Args:
        node: the publisher.
        query: what is asked.
        texts: tokens that each contributor gives, about.
        span_len: tokens of the publisher's span, about.
    """
    options, plans, sizes = query.options, query.resolved.plans, node.prefiller.model.sizes
    can_ask = bool(plans.asked.layers) and options.prefix is PrefixMode.PUBLIC
    if options.exchange is not Exchange.AUTO or query.link is None or not (texts and can_ask):
        return options.exchange
    layout = build_layout(
        num_layers=sizes.kv.num_layers,
        prefix_len=len(node.prefix),
        contributors=[(f"{index}", max(1, length)) for index, length in enumerate(texts)],
        publisher=(node.node_id, max(1, span_len)),
        plans=plans,
        compression=query.resolved.compression,
        is_sealed=node.identity.is_verifying,
    )
    times = exchange_times(
        layout, plans, sizes, query.link, query.sampling.max_new_tokens, query.query_codec
    )
    log.info("exchange_chosen", rows_s=round(times.rows, 3), asked_s=round(times.asked, 3))
    return Exchange.ASK if times.asked < times.rows else Exchange.AUTO


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
        and other.node_id not in options.without
        and (not named or other.node_id in named)
    ][: MAX_MEMBERS - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _TokenBudget:
    """Most tokens of texts.

    Attributes:
        own: of the publisher's.
        contributors: of all others' together.
        each: of one of them.
    """

    own: int
    contributors: int
    each: int

    @classmethod
    def of(cls, node: ParticipantNode, query: Query, num_peers: int, question_len: int) -> Self:
        """What suits the model, or what was asked for, as far as the window has room.

        Nothing of it depends on the question but for its length.

        Raises:
            ContextTooLongError: the question leaves no room for any text.
        """
        window, num_new = node.prefiller.model.max_positions, query.sampling.max_new_tokens
        room = window - len(node.prefix) - question_len - num_new
        if room <= num_peers:
            raise ContextTooLongError(
                f"the question has {question_len} tokens, the prefix {len(node.prefix)}, and "
                f"{num_new} may be decoded: {num_peers + 1 - room} tokens too many for the model's "
                f"window of {window} and the texts of {num_peers + 1} nodes; shorten the question "
                f"or ask for fewer tokens"
            )
        total = min(room, query.options.context_tokens or context_tokens_of(node.profile))
        knows, asked = query.hint is not None, query.options.node_tokens
        text_len = node.context.summary.num_tokens
        most = node_tokens(total, num_peers + 1, knows_question=True)
        mine = min(text_len, most, asked or most)
        left = max(1, total - mine)
        least = query.options.min_participants - 1
        share = node_tokens(left, num_peers, knows_question=knows, least_nodes=least)
        each = min(left, share if asked is None else min(asked, left // max(1, least)))
        return cls(own=mine, contributors=left, each=each)


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
