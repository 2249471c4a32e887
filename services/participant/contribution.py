"""A contributor's part: answer invitations, then compute and send."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from fedattn.core.answer_bounds import AnswerBounds
from fedattn.core.errors import (
    FedAttnError,
    InternalError,
    SessionAbortedError,
    SessionStateError,
    TermsRefusedError,
)
from fedattn.core.request import SessionRequest
from fedattn.core.reuse import asked_key
from fedattn.core.spans import Member, PrefixMode
from fedattn.core.terms import check_session_id
from fedattn.model.asked import AskedRows
from fedattn.model.draft_pace import MOST_DRAFTS
from fedattn.runtime.tracing import NODE, SESSION, current_span, span
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.contexts import context_to_wire
from fedattn.wire.exchange import decline_of
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.acceptance import Accepted, accept
from services.participant.answers import AskedNode
from services.participant.exchange import GrpcKvExchange
from services.participant.exchange_options import ContributorOptions
from services.participant.kv_cache import CachedAsked, CachedFrames
from services.participant.node import ParticipantNode
from services.participant.spans import prefill_span
from services.participant.terms import RequestReader, SignedRequest, agree

log = structlog.get_logger(__name__)

_START_WITHIN_S = 60.0
"""An accepted session that has not started by then gives its place back."""
_MOST_ASKED = 64
_LAST_WORD_S = 2.0
"""Time to say why a session cannot go on, on its own stream, where nothing overtakes it."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """An accepted session that has not started yet."""

    accepted: Accepted
    expiry: asyncio.TimerHandle


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What this node does in a session that has started.

    Attributes:
        accepted: what it agreed to.
        exchange: with the others.
        cached: frames to send again; None to compute rows.
    """

    accepted: Accepted
    exchange: GrpcKvExchange
    cached: CachedFrames | None


Release = Callable[[], None]
"""Gives memory back."""
Emit = Callable[[pb.InviteReply], None]
"""Sends one more reply on the control stream."""


def decline(session_id: str, error: FedAttnError) -> pb.InviteReply:
    """A contributor's word that it cannot take part, or cannot begin."""
    return pb.InviteReply(session_id=session_id, decline=decline_of(error))


class Contributor:
    """Takes part in other nodes' sessions. Lives on the event loop."""

    def __init__(self, node: ParticipantNode, aggregators: Aggregators) -> None:
        self._node = node
        self._aggregators = aggregators
        self._requests = RequestReader(node.identity)
        self._answering: set[str] = set()
        self._pending: dict[str, _Pending] = {}
        self._running: dict[str, tuple[asyncio.Task[None], GrpcKvExchange]] = {}

    async def answer(self, invite: pb.Invite) -> pb.InviteReply:
        """What this node agrees to, or why it cannot take part."""
        names = {NODE: self._node.node_id}
        with span("answer invitation", names, parent=invite.traceparent) as answering:
            reply = await self._answer(invite)
            if reply.HasField("decline"):
                answering.fail(reply.decline.code)
            return reply

    async def _answer(self, invite: pb.Invite) -> pb.InviteReply:
        session_id = invite.session_id
        request: SessionRequest | None = None
        try:
            check_session_id(session_id)
            signed = self._requests.read(invite.request)
            request = signed.request
            accepted = await self._accept(invite, signed)
        except FedAttnError as error:
            log.warning("declined", session=session_id[:40], code=error.code, why=str(error))
            await self._node.consent.refuse(session_id, request, error)
            reply = decline(session_id, error)
            reply.context.CopyFrom(context_to_wire(self._node.context.summary))
            return reply
        expiry = asyncio.get_running_loop().call_later(_START_WITHIN_S, self._forget, session_id)
        self._pending[session_id] = _Pending(accepted, expiry)
        return accepted.reply()

    async def _accept(self, invite: pb.Invite, signed: SignedRequest) -> Accepted:
        """Accept, unless told meanwhile that nobody waits for it.

        Raises:
            FedAttnError: the node cannot take part.
        """
        session_id = invite.session_id
        if session_id in {*self._answering, *self._pending, *self._running}:
            raise SessionStateError("this session has invited the node already")
        self._answering.add(session_id)
        try:
            accepted = await accept(self._node, invite, signed)
            if session_id not in self._answering:
                self._give_back(accepted)
                raise SessionAbortedError("the session was cancelled")
        finally:
            self._answering.discard(session_id)
        return accepted

    def _give_back(self, accepted: Accepted) -> None:
        """A session that was accepted does not begin."""
        accepted.place.release()
        self._node.consent.drop(accepted.session_id)

    def start(self, start: pb.SessionStart, emit: Emit) -> None:
        """Begin a session this node was invited to; a failure is told as a late decline."""
        session_id = start.terms.session_id
        pending = self._pending.pop(session_id, None)
        if pending is None:
            log.warning("unknown_session", session=session_id)
            return
        pending.expiry.cancel()
        accepted = pending.accepted
        try:
            part = self._part(start, accepted)
            release = self._claim(part)
        except FedAttnError as error:
            log.warning("terms_refused", session=session_id, code=error.code, error=str(error))
            self._refuse_terms(accepted, error, emit)
            return
        except Exception:  # border: what the aggregator sends must not end the control loop
            log.exception("terms_refused", session=session_id)
            self._refuse_terms(accepted, InternalError("it failed; see its log"), emit)
            return
        work = self._take_part_traced(part, start, emit, release)
        self._running[session_id] = (asyncio.create_task(work), part.exchange)

    def _claim(self, part: _Part) -> Release:
        """Memory for this node's part, for as long as it runs.

        Raises:
            NodeBusyError: there is not enough.
        """
        if part.cached is not None:
            return lambda: None
        layout = part.exchange.terms.layout
        index = layout.members.index(part.exchange.member)
        return self._node.memory.take(self._node.session_memory(layout, index))

    def _refuse_terms(self, accepted: Accepted, error: FedAttnError, emit: Emit) -> None:
        """Nothing leaves on terms that nobody agreed to."""
        self._give_back(accepted)
        self._node.consent.refuse(accepted.session_id, accepted.signed.request, error)
        emit(decline(accepted.session_id, error))

    def _part(self, start: pb.SessionStart, accepted: Accepted) -> _Part:
        """What there is to do, on terms that hold what everybody said.

        Raises:
            FedAttnError: they do not, or the owner's policy forbids it.
        """
        request = accepted.signed.request
        agreement = agree(start, accepted.signed, self._node, accepted.statement)
        member = agreement.terms.layout.members[agreement.index]
        cached = accepted.cached.get(member.cache_key) if member.is_cached_by_owner else None
        content_key = None if cached is None else cached.content_key
        is_first = request.prefix.mode is PrefixMode.FIRST and agreement.index == 0
        if accepted.owns_prefix != is_first:
            raise TermsRefusedError("the terms differ in who owns the prefix")
        asked = None
        if member.is_asked:
            asked = self._asked_node(accepted, member, agreement.terms.layout.publisher)
        exchange = GrpcKvExchange(
            agreement.terms,
            agreement.index,
            self._node.threads.pool,
            self._node.prefiller.model,
            sealing=agreement.sealing(accepted.identity, accepted.keys, content_key),
            keeps=self._node.frames.max_bytes > 0,
            contributor=ContributorOptions(
                scorer=self._node.scorer, withheld=accepted.span.withheld, asked=asked
            ),
        )
        others = set(exchange.receivers()) - {request.node_id}
        accepted.leave.policy.check_receivers(sorted(others))
        is_held = cached is not None and exchange.route.uploads <= cached.frames.keys()
        if member.is_cached_by_owner and not is_held:
            raise SessionStateError("the terms count on frames that are not cached here")
        return _Part(accepted=accepted, exchange=exchange, cached=cached)

    def _asked_node(self, accepted: Accepted, member: Member, publisher: Member) -> AskedNode:
        """What this node answers from, as far as its owner lets it."""
        consent, session_id = self._node.consent, accepted.session_id
        return AskedNode(
            rows=self._asked_rows(accepted, member, publisher),
            compute=self._node.compute,
            spend=lambda *spent: consent.spend_answers(session_id, *spent),
        )

    def _asked_rows(self, accepted: Accepted, member: Member, publisher: Member) -> AskedRows:
        """What this node is asked about, with what it still has of it."""
        node, request = self._node, accepted.signed.request
        key = asked_key(request, accepted.span.version, member)
        known = node.asked.snapshot(_MOST_ASKED).get(key) if request.options.reuse else None
        node.asked.touch([key])
        model, policy = node.prefiller.model, accepted.leave.policy
        return AskedRows(
            member,
            model.rotaries,
            model.windows,
            accepted.span.withheld,
            known={} if known is None else known.layers,
            bounds=AnswerBounds(
                lengths=model.row_bounds,
                least_rows=policy.answer_least_rows,
                noise=policy.answer_noise,
                end=publisher.span.stop + request.max_new_tokens + MOST_DRAFTS,
            ),
        )

    def cancel(self, cancel: pb.SessionCancel) -> None:
        """Forget or end a session."""
        self._answering.discard(cancel.session_id)
        self._forget(cancel.session_id)
        if cancel.session_id in self._running:
            self._running[cancel.session_id][1].cancel(SessionAbortedError(cancel.reason))

    def _forget(self, session_id: str) -> None:
        """Give back the place of an accepted session that never started."""
        pending = self._pending.pop(session_id, None)
        if pending is not None:
            pending.expiry.cancel()
            self._give_back(pending.accepted)

    def forget_invitations(self) -> None:
        """Nothing comes of accepted sessions any more: the aggregator is gone."""
        self._answering.clear()
        for session_id in list(self._pending):
            self._forget(session_id)

    async def close(self) -> None:
        """End running sessions."""
        self.forget_invitations()
        running = [task for task, _ in self._running.values()]
        for _, exchange in list(self._running.values()):
            exchange.cancel(SessionAbortedError("this node stops"))
        if running:
            await asyncio.wait(running, timeout=_LAST_WORD_S)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._node.consent.settled()

    async def _take_part_traced(
        self, part: _Part, start: pb.SessionStart, emit: Emit, release: Release
    ) -> None:
        names = {NODE: self._node.node_id, SESSION: start.terms.session_id}
        with span("contribute", names, parent=start.traceparent) as contributing:
            contributing.set("fedattn.span.tokens", len(part.accepted.span.token_ids))
            contributing.set("fedattn.cached", part.cached is not None)
            try:
                await self._take_part(part, start, emit, release)
            finally:
                release()
                self._node.threads.tidy()

    async def _exchange(self, exchange: GrpcKvExchange, start: pb.SessionStart) -> None:
        """Move bytes through the aggregator of the session, if there are any."""
        if exchange.is_idle:
            return
        home, address = self._aggregators.home, start.aggregator
        try:
            server = self._aggregators.at(address) if address else home
        except FedAttnError as error:
            exchange.cancel(error)
            raise
        await exchange.run(server, start.member_token)

    async def _take_part(
        self, part: _Part, start: pb.SessionStart, emit: Emit, release: Release
    ) -> None:
        accepted, exchange = part.accepted, part.exchange
        session_id, outcome = accepted.session_id, SessionAbortedError.code
        transfer = asyncio.create_task(self._exchange(exchange, start))
        answering = asyncio.create_task(_answer_all(exchange))
        answering.add_done_callback(lambda task: _stop_if_failed(task, exchange))
        try:
            with self._node.metrics.session("contributor"):
                begun = time.monotonic()
                await self._node.compute(lambda: self._compute(part))
                compute_s = time.monotonic() - begun - exchange.wait_s - exchange.room_wait_s
                compute_s += await answering
                exchange.finish(compute_s)
                await transfer
            outcome = "complete"
            release()  # frames that are kept count by themselves
            self._cache(part)
            self._node.metrics.prefilled(
                compute_s, row_wait_s=exchange.wait_s, room_wait_s=exchange.room_wait_s
            )
            log.info(
                "contributed",
                session=session_id,
                tokens=len(accepted.span.token_ids),
                share=accepted.signed.request.options.share.value,
                passages=[one.number for one in accepted.span.spans],
                publisher=accepted.signed.request.node_id,
                blocks=sorted(exchange.bytes_sent),
                answers=exchange.num_answered,
            )
        except FedAttnError as error:
            outcome = error.code
            current_span().fail(outcome)
            log.warning("session_failed", session=session_id, code=error.code, error=str(error))
            await self._say_why(part, transfer, error, emit)
        except Exception:  # border: one session's defect must not end the node
            outcome = InternalError.code
            current_span().fail(outcome)
            log.exception("session_failed", session=session_id)
            await self._say_why(part, transfer, InternalError("it failed; see its log"), emit)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            await self._end(part, transfer, outcome)

    async def _say_why(
        self, part: _Part, transfer: asyncio.Task[None], error: FedAttnError, emit: Emit
    ) -> None:
        """Tell the aggregator why this node cannot go on, before its stream ends."""
        part.exchange.fail(error)
        done, _ = await asyncio.wait({transfer}, timeout=_LAST_WORD_S)
        if not done:  # the aggregator takes nothing of it now
            emit(decline(part.accepted.session_id, error))

    async def _end(self, part: _Part, transfer: asyncio.Task[None], outcome: str) -> None:
        """Write down what left, and only then give the place back: who drains waits for it."""
        exchange, session_id = part.exchange, part.accepted.session_id
        try:
            try:
                transfer.cancel()
                await asyncio.gather(transfer, return_exceptions=True)
            finally:
                frames, member = exchange.bytes_sent, exchange.member
                num_heads = exchange.terms.shape.num_kv_heads
                await self._node.consent.note_sent(
                    session_id,
                    frames,
                    exchange.receivers(),
                    outcome,
                    num_rows=member.mean_rows(frames, num_heads),
                    span_len=len(member.span),
                    passages=tuple(one.number for one in part.accepted.span.spans),
                    num_answers=exchange.num_answered,
                )
        finally:
            part.accepted.place.release()
            self._running.pop(session_id, None)

    def _cache(self, part: _Part) -> None:
        """Keep what was sent, or asked about, for later sessions."""
        exchange, accepted = part.exchange, part.accepted
        self._node.frames.put(exchange.member.cache_key, exchange.cacheable_frames())
        if exchange.answers is not None:
            version = accepted.span.version
            key = asked_key(accepted.signed.request, version, exchange.member)
            self._node.asked.put(key, CachedAsked(exchange.answers.kept))

    def _compute(self, part: _Part) -> None:
        """Send this node's rows: computed now, or frames it has cached."""
        exchange, token_ids = part.exchange, part.accepted.span.token_ids
        if exchange.answers is not None and exchange.answers.has_all:
            return
        if part.cached is None:
            prefix = list(self._node.prefix) if exchange.terms.layout.prefix_len else []
            with prefill_span(self._node.node_id, exchange):
                self._node.prefiller.contribute(exchange.member, prefix, token_ids, exchange)
            return
        for layer in sorted(exchange.route.uploads):
            exchange.send_frame(layer, part.cached.frames[layer])


async def _answer_all(exchange: GrpcKvExchange) -> float:
    """Answer the publisher while and after this node computes, if it is asked; seconds it took."""
    if exchange.answers is None:
        return 0.0
    await exchange.answers.run()
    return exchange.answers.compute_s


def _stop_if_failed(answering: asyncio.Task[float], exchange: GrpcKvExchange) -> None:
    """Who cannot answer need not compute on either, and its reason is told at once."""
    error = None if answering.cancelled() else answering.exception()
    if isinstance(error, FedAttnError):
        exchange.cancel(error)
