"""The sessions of one aggregator: opened, held for their life, drained."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing

import structlog

from fedattn.core.errors import (
    AggregatorUnavailableError,
    FedAttnError,
    NodeBusyError,
    RateLimitedError,
    SessionAbortedError,
    UnknownSessionError,
)
from fedattn.core.fair_places import Place
from fedattn.runtime.tracing import SESSION, current_span, traceparent
from fedattn.wire.convert import require_range
from fedattn.wire.exchange import Request
from fedattn.wire.requests import Opening, opening_from_wire
from fedattn.wire.security import CheckCaller
from fedattn.wire.terms import terms_to_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import federation_pb2
from services.aggregator.federation import Federation, server_of
from services.aggregator.metrics import AggregatorMetrics
from services.aggregator.opened import OpenedSession
from services.aggregator.opening import SessionOpener
from services.aggregator.peer import MAX_PEERS, Peer
from services.aggregator.quotas import Quotas
from services.aggregator.record import SessionRecord
from services.aggregator.registry import Node, NodeRegistry
from services.aggregator.relay import relay_member
from services.aggregator.report import describe_excluded
from services.aggregator.session import Session
from services.aggregator.settings import AggregatorSettings

log = structlog.get_logger(__name__)

_LEFT = "it left before the exchange began"
_LAST_WORDS_S = 5.0
"""Time for members to read the end of their streams once a session is over."""
_OVER_QUOTA = (NodeBusyError, RateLimitedError)


class Sessions:
    """Opens sessions, finds them, ends them at their deadline. Lives on the event loop.

    Attributes:
        standing: which nodes let others wait.
    """

    def __init__(  # noqa: PLR0913 - what it is composed of
        self,
        registry: NodeRegistry,
        opener: SessionOpener,
        metrics: AggregatorMetrics,
        record: SessionRecord,
        settings: AggregatorSettings,
        *,
        federation: Federation,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._federation = registry, federation
        self._opener = opener
        self._metrics = metrics
        self._record = record
        self.standing = opener.standing
        self._settings = settings
        self._clock = clock
        self._quotas = Quotas(settings, clock)
        self._sessions: dict[str, Session] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._opening: set[asyncio.Task[object]] = set()
        self._is_draining = False

    async def open(
        self, message: pb.OpenSessionRequest, check_caller: CheckCaller
    ) -> pb.OpenSessionResponse:
        """Lay out a session and start its contributors.

        Raises:
            FedAttnError: it cannot be opened; says why.
        """
        call = asyncio.current_task()
        assert call is not None
        opening: Opening | None = None
        place: Place | None = None
        try:
            self._opening.add(call)
            opening = opening_from_wire(message)
            check_caller(opening.request.node_id)
            publisher = self._registry.authenticate(opening.request.node_id, opening.node_token)
            server = self._server_of(message)
            if server != self._federation.own:
                return pb.OpenSessionResponse(redirect=server.to_wire())
            self._check_open()
            place = self._quotas.take(opening.request)
            return await self._open(opening, publisher, place)
        except FedAttnError as error:
            self._metrics.refuse(error.code)
            is_over_quota = place is None and isinstance(error, _OVER_QUOTA)
            if not is_over_quota:  # who asks too often fills no record
                await self._record.refused(None if opening is None else opening.request, error)
            raise
        finally:
            self._opening.discard(call)

    def _check_open(self) -> None:
        """Refuse sessions that would not end before this aggregator."""
        if self._is_draining:
            raise AggregatorUnavailableError("this aggregator is stopping; try again in a moment")

    def _server_of(self, message: pb.OpenSessionRequest) -> Peer:
        """The aggregator that serves the session a message asks for."""
        if message.redirected:
            return self._federation.own
        require_range("number of unreachable", len(message.unreachable), 0, MAX_PEERS)
        key = hashlib.sha256(message.request.payload).digest()
        return server_of(key, self._federation, message.unreachable)

    async def _open(
        self, opening: Opening, publisher: Node, place: Place
    ) -> pb.OpenSessionResponse:
        """Open a session in a place, which is given back when it ends or is not opened."""
        try:
            with self._metrics.answer_waits.time():
                has_others = self._quotas.has_others(publisher.node_id)
                opened = await self._opener.open(opening, publisher, has_others=has_others)
        except BaseException:  # also if the publisher has gone
            place.release()
            raise
        return self._start(opened, place)

    def _start(self, opened: OpenedSession, place: Place) -> pb.OpenSessionResponse:
        session = Session(
            opened,
            outbox_bytes=self._settings.outbox_bytes,
            stall_timeout_s=self._settings.stall_timeout_s,
            pace=self._settings.pace(opened.terms.deadline_s),
            blame=self.standing.note_failure,
            clock=self._clock,
        )
        self._sessions[session.session_id] = session
        self._metrics.sessions_open.inc()
        self._watchers[session.session_id] = asyncio.create_task(self._watch(session, place))
        current_span().set(SESSION, session.session_id)
        log.info("session_opened", session=session.session_id, members=len(opened.members))
        return self._start_members(session)

    def _start_members(self, session: Session) -> pb.OpenSessionResponse:
        """Tell contributors on their control streams; the publisher gets it as its response."""
        terms, statements = terms_to_wire(session.opened.terms), session.opened.statements
        *contributors, publisher = session.opened.members
        for member in contributors:
            start = pb.SessionStart(
                terms=terms,
                member_token=member.token,
                statements=statements,
                traceparent=traceparent(),
                aggregator="" if member.node.home is None else self._federation.own.address,
            )
            member.node.send(pb.ControlResponse(start=start))
            if self._registry.find(member.node.node_id) is not member.node:  # left meanwhile
                session.mark_waiting_lost(SessionAbortedError(_LEFT), member.node.node_id)
        return pb.OpenSessionResponse(
            start=pb.SessionStart(terms=terms, member_token=publisher.token, statements=statements),
            excluded=map(describe_excluded, session.opened.excluded),
        )

    async def relay(
        self,
        hello: pb.Hello,
        requests: AsyncIterator[Request],
        check_caller: CheckCaller,
    ) -> AsyncGenerator[bytes | pb.ExchangeResponse, None]:
        """Serve one member's exchange stream, as `relay_member`.

        Raises:
            UnknownSessionError: no such session is open.
        """
        session = self._sessions.get(hello.session_id)
        if session is None:
            raise UnknownSessionError("no such session is open; it may have ended")
        responses = relay_member(
            session,
            hello.member_token,
            requests,
            check_caller=check_caller,
            report_timeout_s=self._settings.report_timeout_s,
            why_broken=self._registry.why_broken,
        )
        stream = asyncio.current_task()
        assert stream is not None
        session.streams.add(stream)
        try:
            async with aclosing(responses):
                async for response in responses:
                    yield response
        finally:
            session.streams.discard(stream)

    def note_decline(self, node: Node, session_id: str, error: FedAttnError) -> None:
        """A contributor's late word that it cannot begin."""
        if (session := self._sessions.get(session_id)) is not None:
            self._lose_late(session, node.node_id, error, "it declined late")
            session.mark_node_lost(node.node_id, error)

    def note_left(self, node: Node, reason: str) -> None:
        """A node has left: it will not attach any more."""
        for session in list(self._sessions.values()):
            error = SessionAbortedError(f"{_LEFT}: {reason}")
            self._lose_late(session, node.node_id, error, "it left late")

    def _lose_late(self, session: Session, node_id: str, error: FedAttnError, reason: str) -> None:
        """Go on without a member that will not attach; to blame if others have waited for long."""
        is_late = self._clock() > session.begun_at + self._settings.invite_timeout_s / 2
        was_waiting = session.mark_waiting_lost(error, node_id)
        if was_waiting and is_late and node_id != session.opened.request.node_id:
            self.standing.note_failure(node_id, reason, session.begun_at)

    async def _watch(self, session: Session, place: Place) -> None:
        """Hold a session for its life, and end it at its deadline."""
        deadline_s = session.opened.terms.deadline_s
        pacing = asyncio.create_task(self._keep_pace(session))
        try:
            async with asyncio.timeout(deadline_s):
                await self._record.opened(session.opened)
                await session.over.wait()
        except TimeoutError:
            session.abort(f"its deadline of {deadline_s:g} s passed")
        finally:
            pacing.cancel()
            session.abort("the aggregator failed; see its log")  # else it is over
            try:
                await self._record.closed(session.opened, session.state)
            finally:
                self._close(session)
                place.release()

    async def _keep_pace(self, session: Session) -> None:
        """Go on without members that do not begin, or let others wait for too long."""
        while not session.over.is_set():
            await asyncio.sleep(self._settings.tick_s)
            session.lose_slow()

    def _close(self, session: Session) -> None:
        del self._sessions[session.session_id]
        del self._watchers[session.session_id]
        self._metrics.sessions_open.dec()
        self._metrics.close(session.state)
        if session.state.is_clean:
            members = session.state.layout.contributors
            self._share([member.cache_key for member in members if member.cache_key])
        for node_id in session.state.done_contributors():
            self.standing.note_good(node_id)
        log.info("session_closed", session=session.session_id)
        loop = asyncio.get_running_loop()
        for stream in session.streams:  # one whose member reads nothing would stay for ever
            loop.call_later(_LAST_WORDS_S, stream.cancel)

    def _share(self, clean_keys: list[bytes]) -> None:
        """Nobody missed anything of these; let whoever serves the next session know."""
        self.learn(clean_keys)
        lesson = federation_pb2.Lesson(clean_keys=clean_keys)
        for peer in self._federation.living():
            if clean_keys and peer != self._federation.own:
                self._federation.write(peer.name, federation_pb2.Letter(lesson=lesson))

    def learn(self, clean_keys: Iterable[bytes]) -> None:
        """Frames that contributors cached under these keys may be used."""
        for key in clean_keys:
            self._opener.clean_keys[key] = None

    async def drain(self) -> None:
        """Open no more sessions, and wait for those that run or are being opened."""
        self._is_draining = True
        while running := {*self._opening, *self._watchers.values()}:
            await asyncio.wait(running)

    def close(self) -> None:
        """End what still runs."""
        for session in list(self._sessions.values()):
            session.abort("the aggregator stops")
