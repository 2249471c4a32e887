"""A contributor's part in a session that has started: compute, send or answer, note what left."""

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
from fedattn.core.plans import format_layers
from fedattn.core.reuse import asked_key
from fedattn.core.spans import Member, PrefixMode
from fedattn.model.asked import AskedRows
from fedattn.model.draft_pace import MOST_DRAFTS
from fedattn.runtime.tracing import NODE, SESSION, current_span, span
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.exchange import decline_of
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.acceptance import Accepted
from services.participant.answers import AskedNode
from services.participant.exchange import GrpcKvExchange
from services.participant.exchange_options import ContributorOptions
from services.participant.kv_cache import CachedAsked, CachedFrames
from services.participant.node import ParticipantNode
from services.participant.spans import prefill_span
from services.participant.terms import agree

log = structlog.get_logger(__name__)

_MOST_ASKED = 64
LAST_WORD_S = 2.0
"""Time to say why a session cannot go on, on its own stream, where nothing overtakes it."""

Release = Callable[[], None]
"""Gives memory back."""
Emit = Callable[[pb.InviteReply], None]
"""Sends one more reply on the control stream."""


def decline(session_id: str, error: FedAttnError) -> pb.InviteReply:
    """A contributor's word that it cannot take part, or cannot begin."""
    return pb.InviteReply(session_id=session_id, decline=decline_of(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What a node does in a session that has started. Lives on the event loop.

    Attributes:
        node: which one.
        accepted: what it agreed to.
        exchange: with the others.
        cached: frames to send again; None to compute rows.
    """

    node: ParticipantNode
    accepted: Accepted
    exchange: GrpcKvExchange
    cached: CachedFrames | None

    def claim(self) -> Release:
        """Memory for this node's part, for as long as it runs.

        Raises:
            NodeBusyError: there is not enough.
        """
        if self.cached is not None:
            return lambda: None
        layout = self.exchange.terms.layout
        index = layout.members.index(self.exchange.member)
        return self.node.memory.take(self.node.session_memory(layout, index))

    async def run(
        self, aggregators: Aggregators, start: pb.SessionStart, emit: Emit, release: Release
    ) -> None:
        """Do it, and give its place back.

        Args:
            aggregators: one of them relays the rows.
            start: of the session.
            emit: says why it cannot go on, if its own stream cannot.
            release: gives the memory back that was claimed for it.
        """
        names = {NODE: self.node.node_id, SESSION: start.terms.session_id}
        with span("contribute", names, parent=start.traceparent) as contributing:
            contributing.set("fedattn.span.tokens", len(self.accepted.span.token_ids))
            contributing.set("fedattn.cached", self.cached is not None)
            try:
                await self._take_part(aggregators, start, emit, release)
            finally:
                release()
                self.node.threads.tidy()

    async def _transfer(self, aggregators: Aggregators, start: pb.SessionStart) -> None:
        """Move bytes through the aggregator of the session, if there are any."""
        exchange = self.exchange
        if exchange.is_idle:
            return
        home, address = aggregators.home, start.aggregator
        try:
            server = aggregators.at(address) if address else home
        except FedAttnError as error:
            exchange.cancel(error)
            raise
        await exchange.run(server, start.member_token)

    async def _take_part(
        self, aggregators: Aggregators, start: pb.SessionStart, emit: Emit, release: Release
    ) -> None:
        accepted, exchange = self.accepted, self.exchange
        session_id, outcome = accepted.session_id, SessionAbortedError.code
        transfer = asyncio.create_task(self._transfer(aggregators, start))
        answering = asyncio.create_task(_answer_all(exchange))
        answering.add_done_callback(lambda task: _stop_if_failed(task, exchange))
        try:
            with self.node.metrics.session("contributor"):
                begun = time.monotonic()
                await self.node.compute(self._compute)
                compute_s = time.monotonic() - begun - exchange.wait_s - exchange.room_wait_s
                compute_s += await answering
                exchange.finish(compute_s)
                await transfer
            outcome = "complete"
            release()  # frames that are kept count by themselves
            self._cache()
            self.node.metrics.prefilled(
                compute_s, row_wait_s=exchange.wait_s, room_wait_s=exchange.room_wait_s
            )
            log.info(
                "contributed",
                session=session_id,
                tokens=len(accepted.span.token_ids),
                share=accepted.signed.request.options.share.value,
                passages=[one.number for one in accepted.span.spans],
                publisher=accepted.signed.request.node_id,
                blocks=format_layers(tuple(sorted(exchange.bytes_sent))),
                answers=exchange.num_answered,
            )
        except FedAttnError as error:
            outcome = error.code
            current_span().fail(outcome)
            log.warning("session_failed", session=session_id, code=error.code, error=str(error))
            await self._say_why(transfer, error, emit)
        except Exception:  # border: one session's defect must not end the node
            outcome = InternalError.code
            current_span().fail(outcome)
            log.exception("session_failed", session=session_id)
            await self._say_why(transfer, InternalError("it failed; see its log"), emit)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            await self._end(transfer, outcome)

    async def _say_why(self, transfer: asyncio.Task[None], error: FedAttnError, emit: Emit) -> None:
        """Tell the aggregator why this node cannot go on, before its stream ends."""
        self.exchange.fail(error)
        done, _ = await asyncio.wait({transfer}, timeout=LAST_WORD_S)
        if not done:  # the aggregator takes nothing of it now
            emit(decline(self.accepted.session_id, error))

    async def _end(self, transfer: asyncio.Task[None], outcome: str) -> None:
        """Write down what left, and only then give the place back: who drains waits for it."""
        exchange, session_id = self.exchange, self.accepted.session_id
        try:
            try:
                transfer.cancel()
                await asyncio.gather(transfer, return_exceptions=True)
            finally:
                frames, member = exchange.bytes_sent, exchange.member
                num_heads = exchange.terms.shape.num_kv_heads
                await self.node.consent.note_sent(
                    session_id,
                    frames,
                    exchange.receivers(),
                    outcome,
                    num_rows=member.mean_rows(frames, num_heads),
                    span_len=len(member.span),
                    passages=tuple(one.number for one in self.accepted.span.spans),
                    num_answers=exchange.num_answered,
                )
        finally:
            self.accepted.place.release()

    def _cache(self) -> None:
        """Keep what was sent, or asked about, for later sessions."""
        exchange, accepted = self.exchange, self.accepted
        self.node.frames.put(exchange.member.cache_key, exchange.cacheable_frames())
        if exchange.answers is not None:
            version = accepted.span.version
            key = asked_key(accepted.signed.request, version, exchange.member)
            self.node.asked.put(key, CachedAsked(exchange.answers.kept))

    def _compute(self) -> None:
        """Send this node's rows: computed now, or frames it has cached."""
        exchange, token_ids = self.exchange, self.accepted.span.token_ids
        if exchange.answers is not None and exchange.answers.has_all:
            return
        if self.cached is None:
            prefix = list(self.node.prefix) if exchange.terms.layout.prefix_len else []
            with prefill_span(self.node.node_id, exchange):
                self.node.prefiller.contribute(exchange.member, prefix, token_ids, exchange)
            return
        for layer in sorted(exchange.route.uploads):
            exchange.send_frame(layer, self.cached.frames[layer])


def prepare_contribution(
    node: ParticipantNode, start: pb.SessionStart, accepted: Accepted
) -> Contribution:
    """What there is to do, on terms that hold what everybody said.

    Raises:
        FedAttnError: they do not, or the owner's policy forbids it.
    """
    request = accepted.signed.request
    agreement = agree(start, accepted.signed, node, accepted.statement)
    member = agreement.terms.layout.members[agreement.index]
    cached = accepted.cached.get(member.cache_key) if member.is_cached_by_owner else None
    content_key = None if cached is None else cached.content_key
    is_first = request.prefix.mode is PrefixMode.FIRST and agreement.index == 0
    if accepted.owns_prefix != is_first:
        raise TermsRefusedError("the terms differ in who owns the prefix")
    asked = None
    if member.is_asked:
        asked = _asked_node(node, accepted, member, agreement.terms.layout.publisher)
    exchange = GrpcKvExchange(
        agreement.terms,
        agreement.index,
        node.threads.pool,
        node.prefiller.model,
        sealing=agreement.sealing(accepted.identity, accepted.keys, content_key),
        keeps=node.frames.max_bytes > 0,
        contributor=ContributorOptions(
            scorer=node.scorer, withheld=accepted.span.withheld, asked=asked
        ),
    )
    others = set(exchange.receivers()) - {request.node_id}
    accepted.leave.policy.check_receivers(sorted(others))
    is_held = cached is not None and exchange.route.uploads <= cached.frames.keys()
    if member.is_cached_by_owner and not is_held:
        raise SessionStateError("the terms count on frames that are not cached here")
    return Contribution(node=node, accepted=accepted, exchange=exchange, cached=cached)


def _asked_node(
    node: ParticipantNode, accepted: Accepted, member: Member, publisher: Member
) -> AskedNode:
    """What this node answers from, as far as its owner lets it."""
    consent, session_id = node.consent, accepted.session_id
    return AskedNode(
        rows=_asked_rows(node, accepted, member, publisher),
        compute=node.compute,
        spend=lambda *spent: consent.spend_answers(session_id, *spent),
    )


def _asked_rows(
    node: ParticipantNode, accepted: Accepted, member: Member, publisher: Member
) -> AskedRows:
    """What this node is asked about, with what it still has of it."""
    request = accepted.signed.request
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
