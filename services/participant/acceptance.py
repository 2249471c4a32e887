"""What a node says yes to when it is invited: for whom, with which tokens, and by whose leave."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedattn.core.agreement import MemberStatement
from fedattn.core.compression import num_kept
from fedattn.core.errors import (
    IdentityMismatchError,
    NothingToGiveError,
    PrefixMismatchError,
)
from fedattn.core.fair_places import Place
from fedattn.core.request import SessionRequest, describe_prefix
from fedattn.core.share import Share
from fedattn.passages.choice import Wish
from fedattn.wire.contexts import context_to_wire
from fedattn.wire.hints import open_hint
from fedattn.wire.identity import Identity, Kind
from fedattn.wire.protocol import MAX_CONTRIBUTOR_KEYS
from fedattn.wire.requests import statement_to_wire
from fedattn.wire.sealing import KeyPair
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.consent import Leave
from services.participant.context import ChosenText
from services.participant.kv_cache import CachedFrames
from services.participant.node import ParticipantNode
from services.participant.policy_rules import Policy
from services.participant.terms import SignedRequest

WHOLE_BELOW = 256
"""A text of at most so many tokens takes part as a whole: choosing from it would save little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A session this node takes part in, with its text and frames as they were then.

    Attributes:
        signed: what its publisher asks for.
        statement: this node's word.
        owns_prefix: whether its span begins with the prefix.
        span: this node's tokens.
        leave: what the owner lets leave.
        cached: frames of earlier sessions, by cache key.
        keys: what others seal keys for this node to; None in plaintext.
        identity: of this node, which signs all of the session by one key.
        place: held for the session.
    """

    signed: SignedRequest
    statement: MemberStatement
    owns_prefix: bool
    span: ChosenText
    leave: Leave
    cached: Mapping[bytes, CachedFrames]
    keys: KeyPair | None
    identity: Identity
    place: Place

    @property
    def session_id(self) -> str:
        """Of the session."""
        return self.statement.session_id

    def reply(self) -> pb.InviteReply:
        """The node's word, signed."""
        payload = statement_to_wire(self.statement).SerializeToString()
        return pb.InviteReply(
            session_id=self.session_id,
            statement=self.identity.sign(Kind.STATEMENT, payload),
            cached_keys=list(self.cached),
            context=context_to_wire(self.span.summary),
        )


async def accept(node: ParticipantNode, invite: pb.Invite, signed: SignedRequest) -> Accepted:
    """Take a place, ask the owner's policy, and only then look into the text.

    Else whoever the policy refuses could search it: whether a passage fits tells what it holds.

    Args:
        node: this one.
        invite: from the aggregator.
        signed: what the publisher asks for, verified.

    Raises:
        FedAttnError: the node cannot, or may not, take part.
    """
    place = node.admission.take(signed.request.node_id, signed.request.options.subject)
    try:
        return await _accept(node, invite, signed, place)
    except BaseException:
        place.release()
        raise


async def _accept(
    node: ParticipantNode, invite: pb.Invite, signed: SignedRequest, place: Place
) -> Accepted:
    signed.request.check_shape(node.prefiller.shape)
    policy = await node.consent.current_policy()
    wish = _wish(node, invite, signed.request, policy)
    is_asked = policy.is_asked(signed.request)
    prefix = list(node.prefix) if invite.owns_prefix else []
    most = await node.threads.run(lambda: _most_tokens(node, wish))
    leave = await node.consent.give_leave(
        invite.session_id,
        signed.request,
        most + len(prefix),
        policy=policy,
        shape=node.prefiller.shape,
        pressure_keep_ratio=node.pressure.max_keep_ratio,
        can_score=node.scorer is not None,
        lifetime_s=node.rows_lifetime_s,
        part_size=_part_size(node) if is_asked else None,
    )
    span, keys = await _choose(node, invite.session_id, signed.request, wish, policy, prefix)
    statement = MemberStatement(
        session_id=invite.session_id,
        request_digest=signed.digest,
        node_id=node.node_id,
        span_len=len(span.token_ids),
        max_keep_ratio=leave.max_keep_ratio,
        can_score=node.scorer is not None,
        num_withheld=len(span.withheld),
        context_version=b"" if is_asked else span.version,
        cache_lifetime_s=leave.cache_lifetime_s,
        key=None if keys is None else keys.public,
        passages=span.spans,
        fit=span.fit,
        is_approved=leave.approval is not None,
        is_asked=is_asked,
    )
    return Accepted(
        signed=signed,
        statement=statement,
        owns_prefix=invite.owns_prefix,
        span=span,
        leave=leave,
        cached=node.frames.snapshot(MAX_CONTRIBUTOR_KEYS),
        keys=keys,
        identity=node.identity.pinned(),
        place=place,
    )


def _part_size(node: ParticipantNode) -> int:
    """Bytes of what this node makes of one token's queries at a block, in float32."""
    return 4 * node.prefiller.model.sizes.num_query_heads * (node.prefiller.shape.head_dim + 1)


def _wish(
    node: ParticipantNode, invite: pb.Invite, request: SessionRequest, policy: Policy
) -> Wish:
    """What the publisher wants of this node's text, as far as its owner goes along.

    Raises:
        PrefixMismatchError: this node computes another prefix.
        PolicyRefusedError: the owner does not want to know so much or so little.
        IdentityMismatchError: what it tells of the question is not what it signed, or did not come.
    """
    if describe_prefix(request.prefix.mode, list(node.prefix)) != request.prefix:
        raise PrefixMismatchError(
            "its system prompt or chat template differs from the publisher's; "
            "set FEDATTN_PARTICIPANT_SYSTEM_PROMPT to the same text on every node"
        )
    policy.check_share(request.options.share)
    words = ""
    if request.options.share is not Share.NOTHING:
        if not invite.hint:
            raise IdentityMismatchError(
                f"{request.node_id} shares its {request.options.share.value}, but nothing of it "
                f"came here: this node joined a moment ago; ask again"
            )
        words = open_hint(invite.hint, node.hint_keys, request).text
    room = node.prefiller.model.max_positions - len(node.prefix)
    asked = request.options.node_tokens or room
    return Wish(
        words=words,
        max_tokens=min(room, asked, policy.max_rows or room),
        standing=policy.standing,
        whole_below=WHOLE_BELOW,
    )


def _most_tokens(node: ParticipantNode, wish: Wish) -> int:
    """Tokens that the text gives at most.

    Raises:
        NothingToGiveError: there is no text.
        ContextUnreadableError: it cannot be read.
    """
    most, summary = node.context.most_tokens(wish)
    if summary.is_empty:
        raise NothingToGiveError(summary.describe_empty())
    return most


async def _choose(  # noqa: PLR0913, PLR0917 - spelt out
    node: ParticipantNode,
    session_id: str,
    request: SessionRequest,
    wish: Wish,
    policy: Policy,
    prefix: list[int],
) -> tuple[ChosenText, KeyPair | None]:
    """What takes part, behind the prefix if that is this node's to give; leave has been given."""
    try:
        span = await node.threads.run(lambda: node.context.choose(wish, policy.withheld))
        span = span.after(prefix)
        _require_rows(span, request)
        return span, await node.threads.run(KeyPair) if node.identity.is_verifying else None
    except BaseException:
        node.consent.drop(session_id)
        raise


def _require_rows(span: ChosenText, request: SessionRequest) -> None:
    """Raise NothingToGiveError unless a row remains, whichever tokens are computed."""
    if not span.token_ids:
        raise NothingToGiveError(
            f"nothing to give: none of {span.summary.num_passages} passages fits what is asked"
        )
    num_inputs = num_kept(len(span.token_ids), request.compression.input_keep_ratio)
    if num_inputs <= len(span.withheld):
        raise NothingToGiveError(
            f"its owner withholds {len(span.withheld)} of {len(span.token_ids)} tokens, and "
            f"{num_inputs} would be computed"
        )
