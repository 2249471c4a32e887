"""What a node says yes to when it is invited: for whom, with which tokens, and by whose leave."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedattn.core.agreement import MemberStatement
from fedattn.core.compression import num_kept
from fedattn.core.errors import ContextTooLongError, NothingToGiveError, PrefixMismatchError
from fedattn.core.request import SessionRequest, describe_prefix
from fedattn.wire.contexts import context_to_wire
from fedattn.wire.identity import Identity, Kind
from fedattn.wire.protocol import MAX_CONTRIBUTOR_KEYS
from fedattn.wire.requests import statement_to_wire
from fedattn.wire.sealing import KeyPair
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.admission import Place
from services.participant.consent import Leave
from services.participant.context import ContextSnapshot
from services.participant.kv_cache import CachedFrames
from services.participant.node import ParticipantNode
from services.participant.terms import SignedRequest
from services.participant.withheld import Pattern


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
        place: held for the session.
    """

    signed: SignedRequest
    statement: MemberStatement
    owns_prefix: bool
    span: ContextSnapshot
    leave: Leave
    cached: Mapping[bytes, CachedFrames]
    keys: KeyPair | None
    place: Place

    @property
    def session_id(self) -> str:
        """Of the session."""
        return self.statement.session_id

    def reply(self, identity: Identity) -> pb.InviteReply:
        """The node's word, signed."""
        payload = statement_to_wire(self.statement).SerializeToString()
        return pb.InviteReply(
            session_id=self.session_id,
            statement=identity.sign(Kind.STATEMENT, payload),
            cached_keys=list(self.cached),
            context=context_to_wire(self.span.summary),
        )


async def accept(node: ParticipantNode, invite: pb.Invite, signed: SignedRequest) -> Accepted:
    """Take a place, read the text, and ask the owner's policy.

    Args:
        node: this one.
        invite: from the aggregator.
        signed: what the publisher asks for, verified.

    Raises:
        FedAttnError: the node cannot, or may not, take part.
    """
    place = node.admission.take()
    try:
        policy = await node.consent.current_policy()
        patterns, owns_prefix = policy.withheld, invite.owns_prefix
        span = await _read_span(node, signed.request, patterns, owns_prefix=owns_prefix)
        keys = await node.threads.run(KeyPair) if node.identity.is_verifying else None
        leave = await node.consent.give_leave(
            invite.session_id,
            signed.request,
            len(span.token_ids),
            policy=policy,
            num_withheld=len(span.withheld),
            shape=node.prefiller.shape,
            pressure_keep_ratio=node.pressure.max_keep_ratio,
            lifetime_s=node.rows_lifetime_s,
        )
    except BaseException:
        place.release()
        raise
    statement = MemberStatement(
        session_id=invite.session_id,
        request_digest=signed.digest,
        node_id=node.node_id,
        span_len=len(span.token_ids),
        max_keep_ratio=leave.max_keep_ratio,
        num_withheld=len(span.withheld),
        context_version=span.version,
        cache_lifetime_s=leave.cache_lifetime_s,
        key=None if keys is None else keys.public,
    )
    return Accepted(
        signed=signed,
        statement=statement,
        owns_prefix=invite.owns_prefix,
        span=span,
        leave=leave,
        cached=node.frames.snapshot(MAX_CONTRIBUTOR_KEYS),
        keys=keys,
        place=place,
    )


async def _read_span(
    node: ParticipantNode,
    request: SessionRequest,
    patterns: Sequence[Pattern],
    *,
    owns_prefix: bool,
) -> ContextSnapshot:
    """The context as it is now, after the prefix if that is this node's to give."""
    prefix = list(node.prefix)
    if describe_prefix(request.prefix.mode, prefix) != request.prefix:
        raise PrefixMismatchError(
            "its system prompt or chat template differs from the publisher's; "
            "set FEDATTN_PARTICIPANT_SYSTEM_PROMPT to the same text on every node"
        )
    span = await node.threads.run(lambda: node.context.withholding(patterns))
    if span.summary.is_empty:
        raise NothingToGiveError(span.summary.describe_empty())
    limit = node.prefiller.model.max_positions
    if len(prefix) + len(span.token_ids) > limit:
        raise ContextTooLongError(
            f"its context has {len(span.token_ids)} tokens and the prefix {len(prefix)}, but "
            f"the model's window is {limit}; shorten the context"
        )
    num_inputs = num_kept(len(span.token_ids), request.options.compression.input_keep_ratio)
    if num_inputs <= len(span.withheld):  # one row must remain, whichever tokens are computed
        raise NothingToGiveError(
            f"its owner withholds {len(span.withheld)} of {len(span.token_ids)} tokens, and "
            f"{num_inputs} would be computed"
        )
    return span.after(prefix) if owns_prefix else span
