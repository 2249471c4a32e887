"""A contributor's part: answer invitations, then compute and send."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from fedattn.core.agreement import MemberStatement
from fedattn.core.compression import num_kept
from fedattn.core.errors import (
    ContextTooLongError,
    FedAttnError,
    InternalError,
    NothingToGiveError,
    PrefixMismatchError,
    SessionAbortedError,
    SessionStateError,
)
from fedattn.core.request import SessionRequest, describe_prefix
from fedattn.core.spans import Role
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.contexts import context_to_wire
from fedattn.wire.identity import Kind
from fedattn.wire.protocol import MAX_CONTRIBUTOR_KEYS
from fedattn.wire.sealing import KeyPair
from fedattn.wire.sessions import statement_to_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.admission import Place
from services.participant.consent import Leave
from services.participant.context import ContextSnapshot
from services.participant.exchange import GrpcKvExchange
from services.participant.kv_cache import CachedFrames
from services.participant.node import ParticipantNode
from services.participant.terms import RequestReader, SignedRequest, agree

log = structlog.get_logger(__name__)

_START_WITHIN_S = 60.0
"""An accepted session that has not started by then gives its place back."""


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A session this node said yes to: for whom, and its tokens and frames as they were then."""

    signed: SignedRequest
    keys: KeyPair
    leave: Leave
    token_ids: list[int]
    withheld: tuple[int, ...]
    cached: Mapping[bytes, CachedFrames]
    place: Place
    expiry: asyncio.TimerHandle


Emit = Callable[[pb.InviteReply], None]
"""Sends one more reply on the control stream."""


def decline(session_id: str, error: FedAttnError) -> pb.InviteReply:
    """A contributor's word that it cannot take part, or cannot go on."""
    why = pb.Decline(code=error.code, message=str(error))
    return pb.InviteReply(session_id=session_id, decline=why)


class Contributor:
    """Takes part in other nodes' sessions. Lives on the event loop."""

    def __init__(self, node: ParticipantNode, aggregator: AggregatorClient) -> None:
        self._node = node
        self._aggregator = aggregator
        self._requests = RequestReader(node.identity)
        self._noting: set[asyncio.Task[None]] = set()
        self._answering: set[str] = set()
        self._pending: dict[str, _Accepted] = {}
        self._running: dict[str, tuple[asyncio.Task[None], GrpcKvExchange]] = {}

    async def answer(self, invite: pb.Invite) -> pb.InviteReply:
        """This node's span length, or why it cannot take part."""
        session_id = invite.session_id
        try:
            signed = self._requests.read(invite.request)
        except FedAttnError as error:
            await self._node.consent.refuse(session_id, None, error)
            return self._decline(session_id, error)
        try:
            span, place, leave = await self._accept(invite, signed.request)
        except FedAttnError as error:
            await self._node.consent.refuse(session_id, signed.request, error)
            return self._decline(session_id, error)
        expiry = asyncio.get_running_loop().call_later(_START_WITHIN_S, self._forget, session_id)
        cached = self._node.frames.snapshot(MAX_CONTRIBUTOR_KEYS)
        keys = KeyPair()
        self._pending[session_id] = _Accepted(
            signed, keys, leave, span.token_ids, span.withheld, cached, place, expiry
        )
        identity = self._node.identity
        statement = MemberStatement(
            session_id=session_id,
            request_digest=signed.digest,
            node_id=self._node.node_id,
            span_len=len(span.token_ids),
            max_keep_ratio=leave.max_keep_ratio,
            num_withheld=len(span.withheld),
            cache_lifetime_s=leave.cache_lifetime_s,
            key=keys.public if identity.is_verifying else None,
        )
        payload = statement_to_wire(statement).SerializeToString()
        return pb.InviteReply(
            session_id=session_id,
            statement=identity.sign(Kind.STATEMENT, payload),
            context_version=span.version,
            cached_keys=list(cached),
            context=context_to_wire(span.summary),
        )

    def _decline(self, session_id: str, error: FedAttnError) -> pb.InviteReply:
        log.warning("declined", session=session_id, code=error.code, why=str(error))
        reply = decline(session_id, error)
        reply.context.CopyFrom(context_to_wire(self._node.context.summary))
        return reply

    async def _accept(
        self, invite: pb.Invite, request: SessionRequest
    ) -> tuple[ContextSnapshot, Place, Leave]:
        """This node's span, a place for the session, and the owner's leave.

        Raises:
            FedAttnError: the node cannot take part, or was told meanwhile that it need not.
        """
        session_id = invite.session_id
        if session_id in {*self._answering, *self._pending, *self._running}:
            raise SessionStateError("this session has invited the node already")
        place = self._node.admission.take()
        self._answering.add(session_id)
        try:
            span = await self._span(request, owns_prefix=invite.owns_prefix)
            leave = await self._node.consent.give_leave(
                session_id,
                request,
                len(span.token_ids),
                num_withheld=len(span.withheld),
                shape=self._node.prefiller.shape,
                pressure_keep_ratio=self._node.pressure.max_keep_ratio,
                lifetime_s=self._node.rows_lifetime_s,
            )
            self._check_wanted(session_id)
        except BaseException:
            place.release()
            raise
        finally:
            self._answering.discard(session_id)
        return span, place, leave

    def _check_wanted(self, session_id: str) -> None:
        if session_id not in self._answering:
            raise SessionAbortedError("the session was cancelled")

    def start(self, start: pb.SessionStart, emit: Emit) -> None:
        """Begin a session this node was invited to; a failure is told as a late decline."""
        session_id = start.terms.session_id
        accepted = self._pending.pop(session_id, None)
        if accepted is None:
            log.warning("unknown_session", session=session_id)
            return
        accepted.expiry.cancel()
        try:
            exchange = self._exchange(start, accepted)
        except FedAttnError as error:
            log.warning("terms_refused", session=session_id, code=error.code, error=str(error))
            self._refuse_terms(accepted, session_id, error, emit)
            return
        work = self._take_part(exchange, start.member_token, accepted, emit)
        self._running[session_id] = (asyncio.create_task(work), exchange)

    def _refuse_terms(
        self, accepted: _Accepted, session_id: str, error: FedAttnError, emit: Emit
    ) -> None:
        """Nothing leaves on terms that nobody agreed to."""
        accepted.place.release()
        noting = self._node.consent.refuse(session_id, accepted.signed.request, error)
        task = asyncio.create_task(noting)
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)
        emit(decline(session_id, error))

    def _exchange(self, start: pb.SessionStart, accepted: _Accepted) -> GrpcKvExchange:
        span_len = len(accepted.token_ids)
        agreement = agree(start, accepted.signed, self._node, Role.CONTRIBUTOR, span_len)
        member = agreement.terms.layout.members[agreement.index]
        cached = accepted.cached.get(member.cache_key) if member.is_cached_by_owner else None
        content_key = None if cached is None else cached.content_key
        return GrpcKvExchange(
            agreement.terms,
            agreement.index,
            self._node.threads.pool,
            self._node.prefiller.model.rotary,
            sealing=agreement.sealing(self._node.identity, accepted.keys, content_key),
            keeps=self._node.frames.max_bytes > 0,
            withheld=accepted.withheld,
        )

    def cancel(self, cancel: pb.SessionCancel) -> None:
        """Forget or end a session."""
        self._answering.discard(cancel.session_id)
        self._forget(cancel.session_id)
        if cancel.session_id in self._running:
            self._running[cancel.session_id][1].cancel(SessionAbortedError(cancel.reason))

    def _forget(self, session_id: str) -> None:
        """Give back the place of an accepted session that never started."""
        accepted = self._pending.pop(session_id, None)
        if accepted is not None:
            accepted.expiry.cancel()
            accepted.place.release()
            self._node.consent.drop(session_id)

    def forget_invitations(self) -> None:
        """Nothing comes of accepted sessions any more: the aggregator is gone."""
        self._answering.clear()
        for session_id in list(self._pending):
            self._forget(session_id)

    async def close(self) -> None:
        """End running sessions."""
        self.forget_invitations()
        for task, exchange in list(self._running.values()):
            exchange.cancel(SessionAbortedError("this node stops"))
            task.cancel()
        running = [task for task, _ in self._running.values()]
        await asyncio.gather(*running, *self._noting, return_exceptions=True)

    async def _span(self, request: SessionRequest, *, owns_prefix: bool) -> ContextSnapshot:
        """The context as it is now, after the prefix if that is this node's to give."""
        prefix = list(self._node.prefix)
        if describe_prefix(request.prefix.mode, prefix) != request.prefix:
            raise PrefixMismatchError(
                "its system prompt or chat template differs from the publisher's; "
                "set FEDATTN_PARTICIPANT_SYSTEM_PROMPT to the same text on every node"
            )
        patterns = self._node.policy.current().withheld
        span = await self._node.threads.run(lambda: self._node.context.withholding(patterns))
        if span.summary.is_empty:
            raise NothingToGiveError(span.summary.describe_empty())
        limit = self._node.prefiller.model.max_positions
        if len(prefix) + len(span.token_ids) > limit:
            raise ContextTooLongError(
                f"its context has {len(span.token_ids)} tokens and the prefix {len(prefix)}, but "
                f"the model's window is {limit}; shorten the context"
            )
        self._require_something_to_give(span, request)
        return span.after(prefix) if owns_prefix else span

    def _require_something_to_give(self, span: ContextSnapshot, request: SessionRequest) -> None:
        """At least one row may travel, whichever tokens are computed."""
        ratio = request.options.compression.input_keep_ratio
        num_inputs = num_kept(len(span.token_ids), ratio)
        if num_inputs <= len(span.withheld):
            raise NothingToGiveError(
                f"its owner withholds {len(span.withheld)} of {len(span.token_ids)} tokens, and "
                f"{num_inputs} would be computed"
            )

    async def _take_part(
        self, exchange: GrpcKvExchange, member_token: str, accepted: _Accepted, emit: Emit
    ) -> None:
        session_id, outcome = exchange.terms.session_id, SessionAbortedError.code
        transfer = asyncio.create_task(exchange.run(self._aggregator, member_token))
        try:
            with self._node.metrics.session("contributor"):
                begun = time.monotonic()
                await self._node.compute(lambda: self._compute(exchange, accepted))
                compute_s = time.monotonic() - begun - exchange.wait_s
                exchange.finish(compute_s)
                await transfer
            outcome = "complete"
            self._cache_frames(exchange)
            self._node.metrics.compute_seconds.inc(compute_s)
            self._node.metrics.wait_seconds.inc(exchange.wait_s)
            log.info(
                "contributed",
                session=session_id,
                tokens=len(accepted.token_ids),
                publisher=accepted.signed.request.node_id,
                blocks=sorted(exchange.bytes_sent),
            )
        except FedAttnError as error:
            outcome = error.code
            log.warning("session_failed", session=session_id, code=error.code, error=str(error))
            emit(decline(session_id, error))
        except Exception:  # border: one session's defect must not end the node
            outcome = InternalError.code
            log.exception("session_failed", session=session_id)
            emit(decline(session_id, InternalError("it failed; see its log")))
        finally:
            transfer.cancel()
            await asyncio.gather(transfer, return_exceptions=True)
            await self._node.consent.note_sent(
                session_id, exchange.bytes_sent, exchange.receivers(), outcome
            )
            self._running.pop(session_id, None)
            accepted.place.release()

    def _cache_frames(self, exchange: GrpcKvExchange) -> None:
        """Keep what was sent for later sessions."""
        self._node.frames.put(exchange.member.cache_key, exchange.cacheable_frames())

    def _compute(self, exchange: GrpcKvExchange, accepted: _Accepted) -> None:
        """Send this node's rows: computed now, or frames it has cached."""
        member, token_ids = exchange.member, accepted.token_ids
        if not member.is_cached_by_owner:
            prefix = list(self._node.prefix) if exchange.terms.layout.prefix_len else []
            self._node.prefiller.contribute(member, prefix, token_ids, exchange)
            return
        cached = accepted.cached.get(member.cache_key)
        if cached is None or not exchange.route.uploads <= cached.frames.keys():
            raise SessionStateError("the terms count on frames that are not cached here")
        for layer in sorted(exchange.route.uploads):
            exchange.send_frame(layer, cached.frames[layer])
