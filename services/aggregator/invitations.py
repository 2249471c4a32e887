"""Asking contributors whether, and with how many tokens, they take part."""

import asyncio
from dataclasses import dataclass

from fedattn.core.errors import (
    ContextTooLongError,
    FedAttnError,
    InvalidRequestError,
    NotEnoughParticipantsError,
    NothingToGiveError,
    error_from_code,
)
from fedattn.core.reuse import MAX_VERSION_SIZE
from fedattn.wire.convert import require_range
from fedattn.wire.protocol import MAX_CONTRIBUTOR_KEYS, MAX_LIFETIME_S, MAX_REASON_LENGTH
from fedattn.wire.sessions import check_cached_keys
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.registry import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """A contributor that takes part: the length of its span, and most of its rows it will send."""

    node: Node
    span_len: int
    max_keep_ratio: float
    reply: pb.InviteReply


class Invitations:
    """Answers of contributors that the aggregator waits for, by session and node."""

    def __init__(self) -> None:
        self._pending: dict[tuple[str, str], asyncio.Future[pb.InviteReply]] = {}

    def answer(self, node_id: str, reply: pb.InviteReply) -> None:
        """Take a node's reply; one nobody waits for any more is dropped."""
        future = self._pending.get((reply.session_id, node_id))
        if future is not None and not future.done():
            future.set_result(reply)

    def leave(self, node_id: str) -> None:
        """A node has left: it will not answer any more."""
        left = pb.Decline(code=NotEnoughParticipantsError.code, message="it left")
        for session_id, asked in list(self._pending):
            if asked == node_id:
                self.answer(node_id, pb.InviteReply(session_id=session_id, decline=left))

    async def ask(self, node: Node, invite: pb.Invite) -> Acceptance | FedAttnError:
        """What a contributor accepts, or why it does not take part."""
        key = (invite.session_id, node.node_id)
        self._pending[key] = asyncio.get_running_loop().create_future()
        try:
            node.send(pb.ControlResponse(invite=invite))
            async with asyncio.timeout(invite.reply_within_s):
                reply = await self._pending[key]
        except TimeoutError:
            self._take_back(node, invite)
            return NotEnoughParticipantsError(
                f"{node.node_id} did not answer within {invite.reply_within_s:g} s"
            )
        finally:
            del self._pending[key]
        answer = _judge(node, reply)
        if isinstance(answer, FedAttnError) and not reply.HasField("decline"):
            self._take_back(node, invite)
        return answer

    def _take_back(self, node: Node, invite: pb.Invite) -> None:
        """Tell a node that its answer is not awaited any more."""
        cancel = pb.SessionCancel(session_id=invite.session_id, reason="the answer came too late")
        node.send(pb.ControlResponse(cancel=cancel))


def _judge(node: Node, reply: pb.InviteReply) -> Acceptance | FedAttnError:
    """What a reply means: an acceptance, a decline, or something that cannot be."""
    limit = node.join.capabilities.max_positions
    try:
        node.tell_context(reply)
        _check_acceptance(reply)
    except InvalidRequestError as error:
        return InvalidRequestError(f"{node.node_id}: {error}; upgrade it")
    if reply.WhichOneof("answer") != "span_len":
        reason = reply.decline.message[:MAX_REASON_LENGTH]
        return error_from_code(reply.decline.code, f"{node.node_id}: {reason}")
    if reply.span_len == 0:
        return NothingToGiveError(f"{node.node_id}: nothing to give")
    if reply.span_len > limit:
        return ContextTooLongError(
            f"{node.node_id} has {reply.span_len} tokens, but its model's window is {limit}"
        )
    return Acceptance(
        node=node,
        span_len=reply.span_len,
        max_keep_ratio=reply.max_keep_ratio or 1.0,
        reply=reply,
    )


def _check_acceptance(reply: pb.InviteReply) -> None:
    require_range("max_keep_ratio", reply.max_keep_ratio, 0, 1)
    require_range("cache_lifetime_s", reply.cache_lifetime_s, 0, MAX_LIFETIME_S)
    require_range("size of context_version", len(reply.context_version), 0, MAX_VERSION_SIZE)
    check_cached_keys(reply.cached_keys, MAX_CONTRIBUTOR_KEYS)
