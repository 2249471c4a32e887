"""`KvExchange` over gRPC: one stream to the aggregator for one member of one session."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor

import grpc

from fedattn.core.chunks import split_frame
from fedattn.core.errors import (
    AggregatorUnavailableError,
    FedAttnError,
    InternalError,
    SessionAbortedError,
    SessionStateError,
)
from fedattn.core.reuse import layout_without_reuse
from fedattn.core.rotary import Rotary
from fedattn.core.routing import Route, route_session
from fedattn.core.session import SessionState
from fedattn.core.spans import Member
from fedattn.core.timeline import Activity, Timeline
from fedattn.core.transfer import write_frame
from fedattn.core.types import FloatArray, KvRows
from fedattn.wire.convert import (
    chunk_from_wire,
    chunk_to_wire,
    layout_from_wire,
    require_range,
    role_to_wire,
    shape_from_wire,
)
from fedattn.wire.protocol import MAX_DEADLINE_S, MAX_LIFETIME_S
from fedattn.wire.status import error_from_rpc
from fedattn.wire.stubs import AggregatorStub
from fedattn.wire.timeline import timeline_to_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.participant.inbox import RowInbox
from services.participant.kv_cache import CachedRows

MAX_FRAMES_IN_FLIGHT = 4
_DEADLINE_MARGIN_S = 10.0
_CLEAN = {
    session_pb2.OUTCOME_COMPLETE,
    session_pb2.OUTCOME_EXCLUDED,
    session_pb2.OUTCOME_EMPTY,
}
_Outgoing = tuple[int, asyncio.Future[bytes]] | pb.MemberDone | None
"""(layer, frame being encoded), the last word, or the end."""
LayerListener = Callable[[int, int, float], None]
"""Told (layer, rows received, seconds waited) after each receive, in the model thread."""


class GrpcKvExchange:
    """Sends own rows and receives others' while the model computes.

    The model thread calls `send` and `receive`; `run` moves bytes on the event loop; encoding
    happens in the executor. At most MAX_FRAMES_IN_FLIGHT own frames wait to leave.
    """

    def __init__(  # noqa: PLR0913 - spelt out
        self,
        start: pb.SessionStart,
        node_id: str,
        executor: Executor,
        rotary: Rotary,
        on_layer: LayerListener = lambda *_: None,
        *,
        held: Mapping[bytes, CachedRows] | None = None,
        keeps: bool = False,
    ) -> None:
        """Check the layout and prepare.

        Args:
            start: what the aggregator said.
            node_id: of this node.
            executor: encodes frames.
            rotary: of the model.
            on_layer: told of every layer received.
            held: rows a publisher has from earlier sessions, by cache key.
            keeps: whether frames sent and rows received are kept for later sessions.

        Raises:
            InvalidInputError: the aggregator's layout contradicts itself or leaves this node out.
            SessionStateError: it counts on rows that are not held here.
        """
        message = start.layout
        layout = layout_from_wire(message)
        require_range("progress_timeout_s", message.progress_timeout_s, 1e-3, MAX_DEADLINE_S)
        require_range("deadline_s", message.deadline_s, 1e-3, MAX_DEADLINE_S)
        self._start = start
        self._state = SessionState(layout, shape_from_wire(message.shape))
        self._index = layout.index_of(node_id)
        is_publisher = self._state.is_publisher(self._index)
        self._timeline = Timeline(is_on=message.timeline)
        self._inbox = RowInbox(
            self._state,
            self._index,
            rotary,
            progress_timeout_s=message.progress_timeout_s,
            min_participants=message.min_participants if is_publisher else 0,
            held=self._find_held(held or {}) if is_publisher and keeps else None,
            timeline=self._timeline,
        )
        self._keeps_frames = keeps and not is_publisher
        self._sent: dict[int, bytes] = {}
        self._executor = executor
        self._rotary = rotary
        self._on_layer = on_layer
        self._loop = asyncio.get_running_loop()
        self._outgoing: asyncio.Queue[_Outgoing] = asyncio.Queue()
        self._in_flight = threading.BoundedSemaphore(MAX_FRAMES_IN_FLIGHT)
        self._encoding_error: FedAttnError | None = None
        self._report: session_pb2.SessionReport | None = None

    @property
    def route(self) -> Route:
        return self._state.routes[self._index]

    @property
    def member(self) -> Member:
        return self._state.member(self._index)

    @property
    def prefix_len(self) -> int:
        """Tokens of the public prefix; 0 if the first participant owns it."""
        return self._state.layout.prefix_len

    @property
    def wait_s(self) -> float:
        """Time the model thread has waited for rows so far, seconds."""
        return self._inbox.wait_s

    # -- model thread ----------------------------------------------------------------------------

    def send(self, layer: int, rows: KvRows, queries: FloatArray) -> None:
        self._make_room(layer)
        self._loop.call_soon_threadsafe(self._encode, layer, rows, queries)

    def send_frame(self, layer: int, frame: bytes) -> None:
        """Send a frame as it is, one that was kept."""
        self._make_room(layer)
        self._loop.call_soon_threadsafe(self._enqueue, layer, frame)

    def _make_room(self, layer: int) -> None:
        self._inbox.check()
        self._timeline.lap(Activity.COMPUTE, layer)
        self._in_flight.acquire()  # released when the frame has left, or the session has ended
        self._timeline.lap(Activity.WAIT, layer)

    def receive(self, layer: int) -> KvRows:
        self._timeline.lap(Activity.COMPUTE, layer)
        before_s = self._inbox.wait_s
        rows = self._inbox.take(layer)
        self._on_layer(layer, rows.num_rows, self._inbox.wait_s - before_s)
        return rows

    # -- event loop ------------------------------------------------------------------------------

    def finish(self, compute_s: float) -> None:
        """This member has sent and received all it needs."""
        self._timeline.lap(Activity.COMPUTE, self._state.shape.num_layers - 1)
        late = self._inbox.late_members()
        done = pb.MemberDone(
            wait_s=self._inbox.wait_s,
            compute_s=compute_s,
            late=[
                pb.LateMember(member=member, from_layer=layer, reason=reason)
                for member, (layer, reason) in late.items()
            ],
        )
        self._outgoing.put_nowait(done)

    def cancel(self, error: FedAttnError) -> None:
        """End the session for this member; the model thread stops at its next step."""
        self._inbox.end(error)

    async def run(self, stub: AggregatorStub) -> None:
        """Move bytes until the aggregator ends the stream.

        Raises:
            FedAttnError: the exchange failed; the model thread has been told too.
        """
        unreachable = AggregatorUnavailableError("the aggregator was lost during the session")
        timeout_s = self._start.layout.deadline_s + _DEADLINE_MARGIN_S
        call = stub.Exchange(self._requests(), timeout=timeout_s)
        try:
            async for response in call:
                self._accept(response)
            self._inbox.end(SessionAbortedError("the aggregator ended the exchange"))
        except grpc.aio.AioRpcError as error:
            failure = error_from_rpc(error, unreachable)
            self._inbox.end(failure)
            raise failure from None
        except FedAttnError as error:
            self._inbox.end(error)
            raise
        except asyncio.CancelledError:
            if self._encoding_error is not None:  # our own requests ended the call
                raise self._encoding_error from None
            raise
        finally:
            self._inbox.end(InternalError("the exchange was cancelled"))
            call.cancel()
            self._end_requests()
            self._release_all()

    @property
    def report(self) -> session_pb2.SessionReport | None:
        """What everyone did; the publisher has it once `run` is over."""
        return self._report

    @property
    def cache_key(self) -> bytes:
        """Names all that this contributor's rows follow from."""
        return self._key_of(self._index)

    def sent_frames(self) -> dict[int, bytes]:
        """Frames that stand for this contributor's rows as a whole; none if any are missing.

        A session in which others hold or miss rows needs or makes only some of them.
        """
        cold = route_session(layout_without_reuse(self._state.layout))
        is_whole = self._sent.keys() == cold[self._index].uploads
        return self._sent if is_whole and not self._inbox.left_out() else {}

    @property
    def cached_keys(self) -> list[bytes]:
        """Cache keys of what was held already and used."""
        return [self._key_of(index) for index in self.route.held]

    def state_key(self, context_version: bytes) -> bytes:
        """Names all that a publisher's rows before its question follow from; may be empty.

        Args:
            context_version: of its own context.
        """
        keys = [member.cache_key for member in self._start.layout.members[:-1]]
        if not keys or not all(keys):
            return b""
        return hashlib.sha256(b"".join([*keys, context_version])).digest()

    @property
    def rows_lifetime_s(self) -> float:
        """How long a publisher may hold what it made of all others' rows, seconds."""
        members = self._start.layout.members[:-1]
        return min((member.rows_lifetime_s for member in members), default=0.0)

    @property
    def is_clean(self) -> bool:
        """Whether everybody did its part, by the aggregator's report."""
        return self._report is not None and all(
            member.state in _CLEAN for member in self._report.members
        )

    def received_rows(self) -> dict[bytes, CachedRows]:
        """Rows a publisher may hold on to, by cache key; none unless everybody did its part."""
        if not self.is_clean:
            return {}
        members = self._start.layout.members
        return {
            self._key_of(sender): CachedRows(
                rows, min(members[sender].rows_lifetime_s, MAX_LIFETIME_S)
            )
            for sender, rows in self._inbox.received().items()
        }

    def _key_of(self, index: int) -> bytes:
        return self._start.layout.members[index].cache_key

    def _find_held(self, held: Mapping[bytes, CachedRows]) -> dict[int, CachedRows]:
        """The held rows that the layout counts on, by place."""
        route = self._state.routes[self._index]
        for index in route.held:
            entry = held.get(self._key_of(index))
            if entry is None or entry.rows.keys() != route.receives:
                node_id = self._state.member(index).node_id
                raise SessionStateError(
                    f"the aggregator counts on rows of {node_id} that are not held here; ask again"
                )
        return {index: held[self._key_of(index)] for index in route.held}

    def local_report(self) -> session_pb2.SessionReport:
        """What this node knows by itself of the session: who took part, but no byte counts."""
        left_out = self._inbox.left_out()
        members = [
            session_pb2.MemberReport(
                node_id=member.node_id,
                role=role_to_wire(member.role),
                state=(
                    session_pb2.OUTCOME_LOST if index in left_out else session_pb2.OUTCOME_COMPLETE
                ),
                span_len=len(member.span),
                detail="bytes and times are missing: the aggregator was lost before its report",
            )
            for index, member in enumerate(self._state.layout.members)
        ]
        return session_pb2.SessionReport(session_id=self._start.layout.session_id, members=members)

    def _encode(self, layer: int, rows: KvRows, queries: FloatArray) -> None:
        def write() -> bytes:
            begin_s = self._timeline.now()
            frame = write_frame(self.member, layer, rows, queries, self._rotary)
            self._timeline.add(Activity.ENCODE, layer, begin_s)
            return frame

        frame = self._loop.run_in_executor(self._executor, write)
        self._outgoing.put_nowait((layer, frame))

    def _enqueue(self, layer: int, frame: bytes) -> None:
        encoded = self._loop.create_future()
        encoded.set_result(frame)
        self._outgoing.put_nowait((layer, encoded))

    async def _requests(self) -> AsyncIterator[pb.ExchangeRequest]:
        session_id, token = self._start.layout.session_id, self._start.member_token
        yield pb.ExchangeRequest(hello=pb.Hello(session_id=session_id, member_token=token))
        while True:
            item = await self._outgoing.get()
            if item is None:
                return
            if isinstance(item, pb.MemberDone):
                item.timeline.extend(timeline_to_wire(self._timeline.slices()))
                yield pb.ExchangeRequest(done=item)
                return
            layer, encoding = item
            try:
                frame = await encoding
            except FedAttnError as error:  # tell the model thread; the stream ends with us
                self._encoding_error = error
                self._inbox.end(error)
                raise
            begin_s = self._timeline.now()
            for chunk in split_frame(frame, layer):
                yield pb.ExchangeRequest(chunk=chunk_to_wire(chunk))
            self._timeline.add(Activity.SEND, layer, begin_s)
            if self._keeps_frames:
                self._sent[layer] = frame
            self._in_flight.release()

    def _accept(self, response: pb.ExchangeResponse) -> None:
        match response.WhichOneof("body"):
            case "chunk":
                self._inbox.add(response.chunk.sender, chunk_from_wire(response.chunk))
            case "lost":
                self._inbox.mark_lost(response.lost.member, response.lost.reason)
            case "report":
                self._report = response.report

    def _end_requests(self) -> None:
        """Drop what has not left, and end `_requests`, which the ended call no longer does."""
        while not self._outgoing.empty():
            item = self._outgoing.get_nowait()
            if isinstance(item, tuple):
                item[1].cancel()
        self._outgoing.put_nowait(None)

    def _release_all(self) -> None:
        """Nothing will leave any more: let a model thread that waits in `send` go on."""
        for _ in range(MAX_FRAMES_IN_FLIGHT):
            try:
                self._in_flight.release()
            except ValueError:
                return
