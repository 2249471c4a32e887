"""gRPC transport of the aggregator: reads messages, calls the handlers, writes messages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeVar

import structlog
from prometheus_client import CollectorRegistry

from fedattn.core.errors import (
    AggregatorUnavailableError,
    FedAttnError,
    InvalidRequestError,
    NodeBusyError,
    SessionAbortedError,
    UnknownSessionError,
    error_from_code,
)
from fedattn.wire.convert import layout_to_wire, shape_to_wire
from fedattn.wire.protocol import MAX_REASON_LENGTH
from fedattn.wire.security import check_caller
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import aggregator_pb2_grpc, session_pb2
from services.aggregator.invitations import Invitations
from services.aggregator.metrics import AggregatorMetrics, NodeCollector
from services.aggregator.opening import OpenedSession, SessionOpener
from services.aggregator.registry import Node, NodeRegistry
from services.aggregator.relay import relay_member
from services.aggregator.session import Session
from services.aggregator.settings import AggregatorSettings
from services.aggregator.windows import list_nodes, tell_windows

log = structlog.get_logger(__name__)
M = TypeVar("M")
_MISSED_HEARTBEATS = 3
_LEFT = "it left before the exchange began"
_LAST_WORDS_S = 5.0
"""Time for members to read the end of their streams once a session is over."""


class AggregatorServicer(aggregator_pb2_grpc.AggregatorServiceServicer):
    """The aggregator's four calls, and the sessions they share."""

    def __init__(
        self, settings: AggregatorSettings, registry: CollectorRegistry | None = None
    ) -> None:
        self._settings = settings
        self._registry = NodeRegistry(settings.max_nodes)
        numbers = registry or CollectorRegistry()
        numbers.register(NodeCollector(self._registry))
        self._metrics = AggregatorMetrics(numbers)
        self._invitations = Invitations()
        self._opener = SessionOpener(self._registry, self._invitations, settings)
        self._sessions: dict[str, Session] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._opening = 0
        self._is_draining = False

    # -- membership ------------------------------------------------------------------------------

    async def Control(
        self, request_iterator: AsyncIterator[pb.ControlRequest], context: Any
    ) -> AsyncIterator[pb.ControlResponse]:
        """Membership of one node, for as long as its stream lives."""
        lease_s = _MISSED_HEARTBEATS * self._settings.heartbeat_interval_s
        first = await _next_within(request_iterator, lease_s)
        if first is None or first.WhichOneof("body") != "join":
            raise InvalidRequestError("the first message on the control stream must be Join")
        check_caller(context, frozenset({first.join.node_id}))
        node = self._registry.join(first.join)
        log.info("node_joined", node=node.node_id, model=node.fingerprint[:12])
        tell_windows(self._registry)
        reader = asyncio.create_task(self._read_control(node, request_iterator, lease_s))
        try:
            interval_s = self._settings.heartbeat_interval_s
            welcome = pb.Welcome(heartbeat_interval_s=interval_s, node_token=node.token)
            yield pb.ControlResponse(welcome=welcome)
            while (message := await node.outbox.get()) is not None:
                yield message
        finally:
            reader.cancel()
            self._registry.leave(node)
            log.info("node_left", node=node.node_id)
            tell_windows(self._registry)
            self._invitations.leave(node.node_id)
            for session in list(self._sessions.values()):
                session.mark_waiting_lost(SessionAbortedError(_LEFT), node.node_id)

    async def _read_control(
        self, node: Node, requests: AsyncIterator[pb.ControlRequest], lease_s: float
    ) -> None:
        """Take heartbeats and replies until the stream ends or falls silent."""
        try:
            while (request := await _next_within(requests, lease_s)) is not None:
                match request.WhichOneof("body"):
                    case "heartbeat":
                        before = node.context
                        node.on_heartbeat(request.heartbeat)
                        if node.context != before:
                            tell_windows(self._registry)
                    case "invite_reply":
                        self._take_reply(node, request.invite_reply)
                    case other:
                        log.warning("unexpected_message", node=node.node_id, kind=other)
                        return
        except InvalidRequestError as error:
            log.warning("bad_message", node=node.node_id, error=str(error))
        finally:
            node.outbox.discard()

    def _take_reply(self, node: Node, reply: pb.InviteReply) -> None:
        """An answer to an invitation, or a contributor's word that it cannot go on."""
        self._invitations.answer(node.node_id, reply)
        session = self._sessions.get(reply.session_id)
        if session is not None and reply.HasField("decline"):
            reason = reply.decline.message[:MAX_REASON_LENGTH]
            session.mark_node_lost(node.node_id, error_from_code(reply.decline.code, reason))

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        """Nodes that are joined right now."""
        return list_nodes(self._registry)

    # -- sessions --------------------------------------------------------------------------------

    async def OpenSession(
        self, request: pb.OpenSessionRequest, context: Any
    ) -> pb.OpenSessionResponse:
        """Lay out a session and start its contributors."""
        if self._is_draining:
            raise AggregatorUnavailableError("this aggregator is stopping; try again in a moment")
        if len(self._sessions) + self._opening >= self._settings.max_sessions:
            raise NodeBusyError(
                f"{self._settings.max_sessions} sessions are open, which is the limit here; "
                f"try again later"
            )
        self._opening += 1
        try:
            opened = await self._opener.open(request)
        except FedAttnError as error:
            self._metrics.refuse(error.code)
            raise
        finally:
            self._opening -= 1
        session = Session(
            opened,
            outbox_bytes=self._settings.outbox_bytes,
            stall_timeout_s=self._settings.stall_timeout_s,
        )
        self._sessions[session.session_id] = session
        self._metrics.sessions_open.inc()
        self._tasks[session.session_id] = asyncio.create_task(
            self._watch(session, request.deadline_s)
        )
        log.info("session_opened", session=session.session_id, members=len(session.tokens))
        layout = self._layout_message(opened, request)
        for node, token in zip(opened.contributors, session.tokens, strict=False):
            start = pb.SessionStart(layout=layout, member_token=token)
            node.send(pb.ControlResponse(start=start))
            if self._registry.find(node.node_id) is not node:  # while others were answering
                session.mark_waiting_lost(SessionAbortedError(_LEFT), node.node_id)
        return pb.OpenSessionResponse(
            start=pb.SessionStart(layout=layout, member_token=session.tokens[-1]),
            excluded=opened.excluded,
        )

    def _layout_message(
        self, opened: OpenedSession, request: pb.OpenSessionRequest
    ) -> session_pb2.SessionLayout:
        state = opened.state
        members = layout_to_wire(state.layout)
        for member, key, lifetime_s in zip(
            members, opened.cache_keys, opened.rows_lifetimes_s, strict=False
        ):
            member.cache_key, member.rows_lifetime_s = key, lifetime_s
        return session_pb2.SessionLayout(
            session_id=opened.session_id,
            shape=shape_to_wire(state.shape),
            prefix_len=state.layout.prefix_len,
            members=members,
            progress_timeout_s=self._settings.progress_timeout_s,
            deadline_s=request.deadline_s,
            min_participants=request.min_participants,
            timeline=request.timeline,
        )

    async def _watch(self, session: Session, deadline_s: float) -> None:
        """Hold a session for its life, and end it at its deadline."""
        late = SessionAbortedError(
            f"it did not begin its exchange within {self._settings.invite_timeout_s:g} s"
        )
        attaching = asyncio.get_running_loop().call_later(
            self._settings.invite_timeout_s, session.mark_waiting_lost, late
        )
        try:
            async with asyncio.timeout(deadline_s):
                await session.over.wait()
        except TimeoutError:
            session.abort(f"its deadline of {deadline_s:g} s passed")
        finally:
            attaching.cancel()
            del self._sessions[session.session_id]
            del self._tasks[session.session_id]
            self._metrics.sessions_open.dec()
            self._metrics.close(session.state)
            if session.state.is_clean:
                for key in session.cache_keys:
                    self._opener.clean_keys.add(key)
            log.info("session_closed", session=session.session_id)
            loop = asyncio.get_running_loop()
            for stream in session.streams:  # one whose member reads nothing would stay for ever
                loop.call_later(_LAST_WORDS_S, stream.cancel)

    async def Exchange(  # type: ignore[override]  # serialized ones too
        self, request_iterator: AsyncIterator[pb.ExchangeRequest], context: Any
    ) -> AsyncIterator[bytes | pb.ExchangeResponse]:
        """Rows of one member in, rows of earlier spans out."""
        first = await _next_within(request_iterator, self._settings.invite_timeout_s)
        if first is None or first.WhichOneof("body") != "hello":
            raise InvalidRequestError("the first message on the exchange stream must be Hello")
        session = self._sessions.get(first.hello.session_id)
        if session is None:
            raise UnknownSessionError("no such session is open; it may have ended")
        responses = relay_member(
            session,
            first.hello.member_token,
            request_iterator,
            report_timeout_s=self._settings.report_timeout_s,
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

    # -- stopping --------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Open no more sessions, and wait for those that run."""
        self._is_draining = True
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def close(self) -> None:
        """End what still runs."""
        for session in list(self._sessions.values()):
            session.abort("the aggregator stops")
        for node in self._registry.all():
            node.outbox.close()


async def _next_within(requests: AsyncIterator[M], timeout_s: float) -> M | None:
    """The next message; None if the stream ended or nothing came in time."""
    try:
        async with asyncio.timeout(timeout_s):
            return await anext(requests)
    except (StopAsyncIteration, TimeoutError):
        return None
