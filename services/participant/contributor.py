"""A contributor's part until a session starts: answer invitations, keep what was promised."""

import asyncio
from dataclasses import dataclass

import structlog

from fedattn.core.errors import (
    FedAttnError,
    InternalError,
    SessionAbortedError,
    SessionStateError,
)
from fedattn.core.request import SessionRequest
from fedattn.core.terms import check_session_id
from fedattn.runtime.tracing import NODE, span
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.contexts import context_to_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.acceptance import Accepted, accept
from services.participant.contribution import (
    LAST_WORD_S,
    Contribution,
    Emit,
    Release,
    decline,
    prepare_contribution,
)
from services.participant.exchange import GrpcKvExchange
from services.participant.node import ParticipantNode
from services.participant.terms import RequestReader, SignedRequest

log = structlog.get_logger(__name__)

_START_WITHIN_S = 60.0
"""An accepted session that has not started by then gives its place back."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """An accepted session that has not started yet."""

    accepted: Accepted
    expiry: asyncio.TimerHandle


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
            contribution = prepare_contribution(self._node, start, accepted)
            release = contribution.claim()
        except FedAttnError as error:
            log.warning("terms_refused", session=session_id, code=error.code, error=str(error))
            self._refuse_terms(accepted, error, emit)
            return
        except Exception:  # border: what the aggregator sends must not end the control loop
            log.exception("terms_refused", session=session_id)
            self._refuse_terms(accepted, InternalError("it failed; see its log"), emit)
            return
        work = self._run(contribution, start, emit, release)
        self._running[session_id] = (asyncio.create_task(work), contribution.exchange)

    def _refuse_terms(self, accepted: Accepted, error: FedAttnError, emit: Emit) -> None:
        """Nothing leaves on terms that nobody agreed to."""
        self._give_back(accepted)
        self._node.consent.refuse(accepted.session_id, accepted.signed.request, error)
        emit(decline(accepted.session_id, error))

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
            await asyncio.wait(running, timeout=LAST_WORD_S)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._node.consent.settled()

    async def _run(
        self, contribution: Contribution, start: pb.SessionStart, emit: Emit, release: Release
    ) -> None:
        try:
            await contribution.run(self._aggregators, start, emit, release)
        finally:
            self._running.pop(start.terms.session_id, None)
