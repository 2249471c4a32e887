"""Asking contributors whether, and with how many tokens, they take part."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedattn.core.errors import (
    ContextTooLongError,
    FedAttnError,
    InvalidInputError,
    InvalidRequestError,
    NotEnoughParticipantsError,
    NothingToGiveError,
    ParticipantDepartedError,
    error_from_code,
)
from fedattn.runtime.tracing import NODE, span, traceparent
from fedattn.wire.protocol import MAX_CONTRIBUTOR_KEYS, MAX_REASON_LENGTH
from fedattn.wire.requests import check_cached_keys, statement_from_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.aggregator.patience import Round
from services.aggregator.registry import Node
from services.aggregator.standing import Standing

_LEFT = "it left"
_LATE_SHARE = 0.2
"""Of the margin, for a node that was late the last time."""


def left(session_id: str, reason: str) -> pb.InviteReply:
    """The reply of a node that is not there any more."""
    why = pb.Decline(code=ParticipantDepartedError.code, message=f"{_LEFT}: {reason}")
    return pb.InviteReply(session_id=session_id, decline=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """A contributor that takes part.

    Attributes:
        node: who it is.
        statement: what it agrees to, as it was signed.
        span_len: tokens of its span.
        text_len: tokens of its text in it, as far as it says.
        fit: how well that fits what is asked, 0 to 1.
        max_keep_ratio: most of its rows that it sends.
        can_score: whether it has scores to choose rows by.
        num_passages: passages that its span is made of.
        num_withheld: rows that never travel.
        cache_lifetime_s: how long the publisher may cache its rows.
        context_version: of its context; empty if nothing is to be reused.
        cached_keys: cache keys whose frames it has cached.
        is_asked: whether its rows stay with it.
    """

    node: Node
    statement: session_pb2.Signed
    span_len: int
    text_len: int
    fit: float
    max_keep_ratio: float
    can_score: bool
    num_passages: int
    num_withheld: int
    cache_lifetime_s: float
    context_version: bytes
    cached_keys: frozenset[bytes]
    is_asked: bool


class Invitations:
    """Answers of contributors that the aggregator waits for, by session and node.

    Args:
        standing: told who does not answer, or declines when others have waited for long.
        timeout_s: a node that has had so long is to blame, and one that declines after half of it;
            a publisher may allow less.
        margin_s: what a node has besides what most others took; one that was late has less.
        clock: seconds since some moment.
    """

    def __init__(
        self,
        standing: Standing,
        timeout_s: float,
        margin_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._standing, self._timeout_s, self._margin_s = standing, timeout_s, margin_s
        self._pending: dict[tuple[str, str], asyncio.Future[pb.InviteReply]] = {}

    def answer(self, node_id: str, reply: pb.InviteReply) -> None:
        """Take a node's reply; one nobody waits for any more is dropped."""
        future = self._pending.get((reply.session_id, node_id))
        if future is not None and not future.done():
            future.set_result(reply)

    def leave(self, node_id: str, reason: str) -> None:
        """A node has left: it will not answer any more."""
        for session_id, asked in list(self._pending):
            if asked == node_id:
                self.answer(node_id, left(session_id, reason))

    async def ask_all(
        self, asked: Sequence[tuple[Node, pb.Invite]], within_s: float
    ) -> list[Acceptance | FedAttnError]:
        """What each contributor accepts, or why it does not take part.

        Args:
            asked: nodes and what they are sent.
            within_s: for each, in any case.
        """
        together = Round(len(asked), within_s)
        return await asyncio.gather(*(self._trace(*one, together) for one in asked))

    async def _trace(
        self, node: Node, invite: pb.Invite, together: Round
    ) -> Acceptance | FedAttnError:
        with span("invite", {NODE: node.node_id}) as asking:
            invite.traceparent = traceparent()
            answer = await self._ask(node, invite, together)
            if isinstance(answer, FedAttnError):
                asking.fail(answer.code)
            return answer

    async def _ask(
        self, node: Node, invite: pb.Invite, together: Round
    ) -> Acceptance | FedAttnError:
        key, loop = (invite.session_id, node.node_id), asyncio.get_running_loop()
        self._pending[key], late_from = loop.create_future(), loop.time() + self._timeout_s / 2
        margin_s, since = self._margin_of(node), self._clock()
        try:
            node.send(pb.ControlResponse(invite=invite))
            reply = await together.wait(self._pending[key], margin_s)
        except TimeoutError:
            self._take_back(node, invite)
            had_s = together.allowed_s(margin_s)
            reason = f"did not answer within {had_s:.3g} s"
            if had_s < invite.reply_within_s or had_s >= self._timeout_s:
                self._standing.note_failure(node.node_id, f"it {reason}", since)
            return NotEnoughParticipantsError(f"{node.node_id} {reason}")
        finally:
            del self._pending[key]
        if reply.HasField("decline") and loop.time() > late_from:
            has_left = reply.decline.code == ParticipantDepartedError.code
            word = _LEFT if has_left else "it declined"
            self._standing.note_failure(node.node_id, f"{word} late", since)
        answer = _judge(node, reply)
        if isinstance(answer, FedAttnError) and not reply.HasField("decline"):
            self._take_back(node, invite)
        return answer

    def _margin_of(self, node: Node) -> float:
        """What a node has besides what most others took."""
        is_late = self._standing.is_late(node.node_id)
        return self._margin_s * (_LATE_SHARE if is_late else 1.0)

    def _take_back(self, node: Node, invite: pb.Invite) -> None:
        """Tell a node that its answer is not awaited any more."""
        cancel = pb.SessionCancel(session_id=invite.session_id, reason="the answer came too late")
        node.send(pb.ControlResponse(cancel=cancel))


def _judge(node: Node, reply: pb.InviteReply) -> Acceptance | FedAttnError:
    """What a reply means: an acceptance, a decline, or something that cannot be."""
    limit = node.join.capabilities.max_positions
    try:
        node.tell_context(reply)
        if reply.WhichOneof("answer") != "statement":
            reason = reply.decline.message[:MAX_REASON_LENGTH]
            return error_from_code(reply.decline.code, f"{node.node_id}: {reason}")
        _check_acceptance(reply)
        said = statement_from_wire(reply.statement.payload)
    except InvalidInputError as error:
        return InvalidRequestError(f"{node.node_id}: {error}; upgrade it")
    if said.span_len == 0:
        return NothingToGiveError(f"{node.node_id}: nothing to give")
    if said.span_len > limit:
        return ContextTooLongError(
            f"{node.node_id} has {said.span_len} tokens, but its model's window is {limit}"
        )
    return Acceptance(
        node=node,
        statement=reply.statement,
        span_len=said.span_len,
        text_len=said.text_len,
        fit=said.fit,
        max_keep_ratio=said.max_keep_ratio,
        can_score=said.can_score,
        num_passages=len(said.passages),
        num_withheld=said.num_withheld,
        cache_lifetime_s=said.cache_lifetime_s,
        context_version=said.context_version,
        cached_keys=frozenset(reply.cached_keys),
        is_asked=said.is_asked,
    )


def _check_acceptance(reply: pb.InviteReply) -> None:
    check_cached_keys(reply.cached_keys, MAX_CONTRIBUTOR_KEYS)
