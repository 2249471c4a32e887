"""A running session: its members' outboxes and the pure state behind them."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable

import structlog

from fedattn.core.asked import MAX_PIECE_SIZE, PIECES_AHEAD
from fedattn.core.chunks import Chunk
from fedattn.core.errors import (
    FedAttnError,
    InvalidRequestError,
    MalformedFrameError,
    SessionAbortedError,
    UnknownSessionError,
)
from fedattn.core.plans import MAX_LAYERS
from fedattn.core.session import MemberState, SessionState
from fedattn.wire.convert import require_range
from fedattn.wire.exchange import SentChunk
from fedattn.wire.protocol import MAX_REASON_LENGTH, MAX_SEALED_KEY_SIZE, MAX_SIGNATURE_SIZE
from fedattn.wire.security import CheckCaller
from fedattn.wire.timeline import MAX_TIME_S, timeline_from_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.opened import OpenedSession
from services.aggregator.outbox import Outbox
from services.aggregator.pace import Pace, PaceLimits
from services.aggregator.report import build_report

log = structlog.get_logger(__name__)

_MESSAGE_OVERHEAD = 1024
"""What a message costs in memory beyond its data, bytes."""


_LAST = MAX_LAYERS
"""Rank of what comes behind the rows of every block."""
_LAST_QUERIES = pb.ExchangeResponse(last_queries=pb.LastQueries())
_ANSWERS_SLOWLY = f"it answers too slowly: more than {PIECES_AHEAD} pieces of queries wait for it"
_GONE_ON = "others went on without rows they waited for"

Blame = Callable[[str, str, float], object]
"""Told (node id, why, since when) of a contributor that let others wait and did not deliver."""


class Session:
    """Members, their outboxes, and what they may do. Lives on one event loop."""

    def __init__(  # noqa: PLR0913 - what it is composed of
        self,
        opened: OpenedSession,
        *,
        outbox_bytes: int,
        stall_timeout_s: float,
        pace: PaceLimits,
        blame: Blame = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.opened = opened
        self.session_id = opened.terms.session_id
        self.state = state = SessionState(opened.terms.layout, opened.terms.shape)
        self.outboxes: tuple[Outbox[bytes | pb.ExchangeResponse], ...] = tuple(
            Outbox(outbox_bytes) for _ in state.ledgers
        )
        for outbox, ledger in zip(self.outboxes, state.ledgers, strict=True):
            if ledger.is_over:
                outbox.close()
        self._ranks = [0] * len(state.ledgers)
        self.over = asyncio.Event()
        self.errors: dict[int, FedAttnError] = {}
        self.streams: set[asyncio.Task[object]] = set()
        self.begun_at = clock()
        self._stall_timeout_s = stall_timeout_s
        self._pace = Pace(state, pace, clock)
        self._blame = blame

    def attach(self, member_token: str, check_caller: CheckCaller) -> int:
        """Let a member in by its token.

        Raises:
            UnknownSessionError: nobody here has that token.
            IdentityMismatchError: the caller is not the node whose token it is.
            SessionStateError: the member is in already, or out.
        """
        for index, member in enumerate(self.opened.members):
            if secrets.compare_digest(member.token.encode(), member_token.encode()):
                check_caller(member.node.node_id)
                self.state.ledgers[index].move(MemberState.ATTACHED)
                self._pace.begin(index)
                return index
        raise UnknownSessionError(f"no member of session {self.session_id} has that token")

    async def accept(self, sender: int, sent: SentChunk) -> None:
        """Check a member's chunk and send it on to all who want it; waits while an outbox is full.

        All receivers get the member's own message, the very bytes that came.

        Args:
            sender: place of the member it is from.
            sent: by it.

        Raises:
            FrameError: it is not what this member was to send.
        """
        if sent.sender != sender:
            raise MalformedFrameError(
                f"chunk from {self.state.member(sender).node_id} says it is of member "
                f"{sent.sender}, expected its own place, {sender}"
            )
        self.state.accept(sender, sent.chunk)
        self._pace.note(sender, sent.chunk)
        await self._forward(sender, sent.chunk, sent.message)

    def pass_key(self, sender: int, request: pb.ExchangeRequest) -> None:
        """Pass on the key of a member's frames, sealed for one other: nobody here can open it.

        Args:
            sender: place of the member it is from.
            request: with a key.

        Raises:
            InvalidRequestError: it is for a member that needs none, or the second for one.
        """
        key, name = request.key, self.state.member(sender).node_id
        self.state.pass_key(sender, key.receiver)
        require_range(f"size of a key from {name}", len(key.sealed), 1, MAX_SEALED_KEY_SIZE)
        require_range(f"size of a signature by {name}", len(key.signature), 1, MAX_SIGNATURE_SIZE)
        request.DiscardUnknownFields()
        key.sender = sender
        message = request.SerializeToString()
        self.outboxes[key.receiver].push(message, len(message) + _MESSAGE_OVERHEAD)

    async def pass_queries(self, sender: int, request: pb.ExchangeRequest) -> None:
        """Pass queries of the publisher on to all who are asked.

        Raises:
            InvalidRequestError: they are not the publisher's next.
        """
        piece = request.queries
        if not self.state.is_publisher(sender):
            raise InvalidRequestError(f"{self.state.member(sender).node_id} may ask nobody")
        self._check_piece(sender, piece)
        size = len(piece.data)
        receivers = self.state.take_queries(piece.number, piece.layer, size)
        for slow in self.state.lagging(PIECES_AHEAD):
            self.mark_lost(slow, SessionAbortedError(_ANSWERS_SLOWLY))
        receivers = tuple(index for index in receivers if not self.state.ledgers[index].is_over)
        message = pb.ExchangeResponse(queries=piece)
        await self._deliver(receivers, message, piece.layer, size)

    async def pass_part(self, sender: int, request: pb.ExchangeRequest) -> None:
        """Pass what a member makes of queries back to the publisher.

        Raises:
            InvalidRequestError: the member was to send none, or another.
        """
        piece = request.part
        self._check_piece(sender, piece)
        self.state.take_part(sender, piece.number, piece.layer, len(piece.data))
        receivers = () if self.state.ledgers[-1].is_over else (len(self.outboxes) - 1,)
        message = pb.ExchangeResponse(part=piece)
        await self._deliver(receivers, message, piece.layer, len(piece.data))

    def _check_piece(self, sender: int, piece: pb.AskedPiece) -> None:
        """Hold a piece against its bounds, and say whose it is."""
        name = self.state.member(sender).node_id
        require_range(f"size of a piece from {name}", len(piece.data), 1, MAX_PIECE_SIZE)
        piece.sender = sender
        piece.DiscardUnknownFields()

    async def _deliver(
        self,
        receivers: Iterable[int],
        response: pb.ExchangeResponse,
        layer: int,
        num_bytes: int,
    ) -> None:
        """Before all rows that wait: nothing is computed meanwhile at either end."""
        message = response.SerializeToString()
        for receiver in receivers:
            await self._put(receiver, message, layer, num_bytes, "queries")

    async def _forward(self, sender: int, chunk: Chunk, message: bytes) -> None:
        """Low blocks first, as receivers need them; those of one sender in the order they came."""
        size = len(message) + _MESSAGE_OVERHEAD
        self._ranks[sender] = max(self._ranks[sender], chunk.layer)
        slow: list[int] = []
        for receiver in self.state.receivers(sender, chunk.layer):
            if not self.outboxes[receiver].has_room(size):
                slow.append(receiver)
            elif self.outboxes[receiver].push(message, size, self._ranks[sender]):
                self.state.count_down(receiver, chunk.layer, len(chunk.data))
        if slow:
            with self._pace.held(sender):
                rank, num_bytes = self._ranks[sender], len(chunk.data)
                waits = (self._put(i, message, chunk.layer, num_bytes, "rows", rank) for i in slow)
                await asyncio.gather(*waits)

    async def _put(  # noqa: PLR0913, PLR0917 - spelt out
        self, receiver: int, message: bytes, layer: int, num_bytes: int, what: str, rank: int = 0
    ) -> None:
        """Send a member a message of a layer; waits if it lags behind, loses it if it stays so."""
        size = len(message) + _MESSAGE_OVERHEAD
        try:
            if await self.outboxes[receiver].put(message, size, self._stall_timeout_s, rank):
                self.state.count_down(receiver, layer, num_bytes)
        except TimeoutError:
            reason = f"it took too few {what} for {self._stall_timeout_s:g} s"
            self.mark_lost(receiver, SessionAbortedError(reason))

    def lose_slow(self) -> None:
        """Go on without members that do not begin, or let others wait for too long."""
        for index, reason in self._pace.look(lambda index: self.outboxes[index].size):
            self.mark_lost(index, SessionAbortedError(reason))

    def complete(self, index: int, done: pb.MemberDone) -> None:
        """A member has all it needs, and has sent all it was to send.

        Raises:
            InvalidRequestError: it has not, or a value is out of range.
        """
        if self.state.ledgers[index].is_asked and not self.state.ledgers[-1].is_over:
            raise InvalidRequestError(
                f"{self.state.member(index).node_id} says it is done, but the publisher still asks"
            )
        if awaited := self.state.ledgers[index].awaited:
            raise InvalidRequestError(
                f"{self.state.member(index).node_id} says it is done, "
                f"but its rows of layer {min(awaited)} never came"
            )
        require_range("wait_s", done.wait_s, 0, MAX_TIME_S)
        require_range("compute_s", done.compute_s, 0, MAX_TIME_S)
        timeline = timeline_from_wire(done.timeline, self.state.shape.num_layers)
        ledger = self.state.ledgers[index]
        ledger.move(MemberState.COMPLETE)
        ledger.wait_s, ledger.compute_s = done.wait_s, done.compute_s
        ledger.timeline = timeline
        route = self.state.routes[index]
        for late in done.late:
            is_row = late.member in route.senders and late.from_layer in route.receives
            if is_row or (late.member in route.asked and late.from_layer in route.asks):
                reason = late.reason[:MAX_REASON_LENGTH]
                self.state.note_late(late.member, late.from_layer, reason, by=index)
        if not self.state.is_publisher(index):  # the publisher still gets its report
            self.outboxes[index].close()
        else:
            for asked in route.asked:
                self.outboxes[asked].push(_LAST_QUERIES, _MESSAGE_OVERHEAD, _LAST)
        self._check_over()

    def mark_lost(self, index: int, error: FedAttnError) -> None:
        """A member is gone, for a reason its own stream ends with: tell those who need its rows."""
        if self.state.ledgers[index].is_over:
            return
        reason = str(error)
        node_id = self.state.member(index).node_id
        log.warning("member_lost", session=self.session_id, node=node_id, reason=reason)
        if self._pace.is_at_fault(index):
            self._blame(node_id, reason, self.begun_at)
        self._end_member(index, error)
        notice = pb.ExchangeResponse(lost=pb.MemberLost(member=index, reason=reason))
        for receiver in self.state.successors(index):
            self.outboxes[receiver].push(notice, _MESSAGE_OVERHEAD, self._ranks[index])
        if self.state.is_publisher(index):
            self.abort(f"the publisher {node_id} is gone: {reason}")
        self._check_over()

    def mark_node_lost(self, node_id: str, error: FedAttnError) -> None:
        """A node cannot go on: lose it, wherever it is on its way."""
        for index, member in enumerate(self.state.layout.members):
            if member.node_id == node_id:
                self.mark_lost(index, error)

    def mark_waiting_lost(self, error: FedAttnError, node_id: str | None = None) -> list[str]:
        """Lose one node, or all, that have not attached yet; their ids."""
        lost: list[str] = []
        for index, ledger in enumerate(self.state.ledgers):
            if node_id in {None, self.state.member(index).node_id} and (
                ledger.state is MemberState.WAITING
            ):
                lost.append(self.state.member(index).node_id)
                self.mark_lost(index, error)
        return lost

    def abort(self, reason: str) -> None:
        """End the session for everyone who is still in it."""
        error = SessionAbortedError(f"session {self.session_id}: {reason}")
        for index, ledger in enumerate(self.state.ledgers):
            if not ledger.is_over:
                self._end_member(index, error)
        self._check_over()

    def _end_member(self, index: int, error: FedAttnError) -> None:
        ledger = self.state.ledgers[index]
        ledger.move(MemberState.LOST)
        ledger.reason = str(error)
        self.errors[index] = error
        self.outboxes[index].discard()

    def send_report(self) -> None:
        """Tell the publisher what everyone did, and end the session: nobody needs more rows."""
        for index, ledger in enumerate(self.state.ledgers):
            if not ledger.is_over and ledger.awaited and self._pace.is_at_fault(index):
                self._blame(self.state.member(index).node_id, _GONE_ON, self.begun_at)
        report = build_report(self.opened, self.state)
        message = pb.ExchangeResponse(report=report)
        self.outboxes[-1].push(message, message.ByteSize(), _LAST)
        self.outboxes[-1].close()
        self.abort("the publisher has all it needs")

    def _check_over(self) -> None:
        if self.state.is_over:
            self.over.set()
