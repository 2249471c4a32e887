"""`KvExchange` over gRPC: one stream to the aggregator for one member of one session."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, Future

import structlog

from fedattn.core.asked import DEFAULT_QUERY_CODEC, PartialAttention, query_codec_by_name
from fedattn.core.chunks import split_frame
from fedattn.core.errors import (
    CorruptFrameError,
    FedAttnError,
    InternalError,
    SessionAbortedError,
)
from fedattn.core.rotary import Rotary
from fedattn.core.routing import Route
from fedattn.core.row_bounds import RowBounds
from fedattn.core.row_scores import RowScorer
from fedattn.core.session import SessionState
from fedattn.core.spans import Member
from fedattn.core.terms import SessionTerms
from fedattn.core.timeline import Activity, Timeline
from fedattn.core.transfer import write_frame
from fedattn.core.types import FloatArray, HeadRows, KvRows, Queries
from fedattn.model.asked import AskedRows
from fedattn.runtime.tracing import NODE, SESSION, current_span, span
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.exchange import Response, SentChunk, decline_of, write_chunk
from fedattn.wire.timeline import timeline_to_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.participant.answers import Answers, Compute
from services.participant.arrivals import LayerArrivals, LayerListener
from services.participant.asking import Asking
from services.participant.inbox import RowInbox
from services.participant.kv_cache import CachedFrames, CachedRows
from services.participant.losses import Losses
from services.participant.report import corrected_report
from services.participant.sealing import NoSealing, Sealing
from services.participant.session_reuse import SessionReuse

log = structlog.get_logger(__name__)

MAX_FRAMES_IN_FLIGHT = 4
_DEADLINE_MARGIN_S = 10.0
_NOT_WRITTEN = "its rows could not be written; see its log"
_Outgoing = tuple[int, Future[bytes]] | pb.ExchangeRequest | pb.MemberDone | pb.Decline | None
"""(layer, frame being encoded), a piece, the last word, why there is none, or the end."""


class GrpcKvExchange:
    """Sends own rows and receives others' while the model computes.

    The model thread calls `send` and `receive`; encoding happens in the executor; `run` moves
    bytes on the event loop. At most MAX_FRAMES_IN_FLIGHT own frames wait to leave.

    Args:
        terms: of the session.
        index: place of this node.
        executor: encodes frames.
        rotaries: of every block.
        bounds: of its rows, the own and the others'.
        sealing: how frames leave and are read; None for as they are.
        cached: rows a publisher has from earlier sessions, by cache key.
        on_layer: told of every layer received.
        scorer: chooses rows for the selector `learned`.
        withheld: tokens of its span whose rows never travel.
        keeps: whether frames sent and rows received are kept for later sessions.
        required: ids of members without all of whose rows it cannot go on.
        query_codec: how a publisher's queries, and what others make of them, are written.
        asked_rows: of a contributor that is asked; takes them.
        query_shape: query heads of the model, and their size.
        spend, compute: as of `Answers`.

    Raises:
        SessionStateError: the terms count on rows that are not cached here.
    """

    def __init__(  # noqa: PLR0913 - spelt out
        self,
        terms: SessionTerms,
        index: int,
        executor: Executor,
        rotaries: Sequence[Rotary],
        *,
        bounds: RowBounds,
        sealing: Sealing | None = None,
        cached: Mapping[bytes, CachedRows] | None = None,
        on_layer: LayerListener = lambda *_: None,
        keeps: bool = False,
        scorer: RowScorer | None = None,
        withheld: Collection[int] = (),
        required: Collection[str] = (),
        query_codec: str = DEFAULT_QUERY_CODEC,
        asked_rows: AskedRows | None = None,
        query_shape: tuple[int, int] = (0, 0),
        spend: Callable[[int, int], None] = lambda *_: None,
        compute: Compute | None = None,
    ) -> None:
        self.terms = terms
        self.state = SessionState(terms.layout, terms.shape)
        self.reuse = SessionReuse(self.state, index)
        self._index = index
        self._timeline = Timeline(is_on=terms.wants_timeline)
        is_publisher = self.state.is_publisher(index)
        self._sealing = sealing or NoSealing()
        self._loop = asyncio.get_running_loop()
        self._outgoing: asyncio.Queue[_Outgoing] = asyncio.Queue()
        self._losses = Losses(self.state, terms.min_participants if is_publisher else 0, required)
        self._inbox = RowInbox(
            self.state,
            index,
            rotaries,
            bounds=bounds,
            sealing=self._sealing,
            progress_timeout_s=terms.progress_timeout_s,
            losses=self._losses,
            cached=self.reuse.find_cached(cached or {}),
            keeps_rows=keeps and is_publisher,
            timeline=self._timeline,
        )
        send = _sender(self._loop, self._outgoing)
        self._asking = Asking(
            self.state,
            self.route,
            codec=query_codec_by_name(query_codec),
            sealing=self._sealing,
            losses=self._losses,
            bounds=bounds,
            progress_timeout_s=terms.progress_timeout_s,
            send=send,
        )
        self._layers_asked: set[int] = set()
        self.answers: Answers | None = None
        if self.route.answers:
            assert asked_rows is not None, "who is asked keeps its rows"
            assert compute is not None
            self.answers = Answers(
                asked_rows,
                (index, len(self.state.routes) - 1),
                query_shape,
                sealing=self._sealing,
                compute=compute,
                send=send,
                spend=spend,
            )
        self._sent: dict[int, bytes] = {}
        self.bytes_sent = {} if self.answers is None else self.answers.bytes_sent
        self._scorer = scorer
        self._withheld = withheld
        self._keeps_frames = keeps and not is_publisher
        self._executor = executor
        self._rotaries = rotaries
        self._bounds = bounds
        self._on_layer = on_layer
        self._in_flight = threading.BoundedSemaphore(MAX_FRAMES_IN_FLIGHT)
        self._report: session_pb2.SessionReport | None = None
        self.room_wait_s = 0.0  # of the model thread, for own rows to leave

    @property
    def route(self) -> Route:
        return self.state.routes[self._index]

    @property
    def member(self) -> Member:
        return self.state.member(self._index)

    @property
    def is_idle(self) -> bool:
        """Whether nothing of this contributor is needed: the aggregator awaits no exchange."""
        return self.state.is_idle(self._index)

    @property
    def wait_s(self) -> float:
        """Time the model thread has waited for others so far, seconds."""
        return self._inbox.wait_s + self._asking.wait_s

    @property
    def num_answered(self) -> int:
        """Tokens whose queries were answered so far, those of each block counted."""
        return 0 if self.answers is None else self.answers.num_tokens

    @property
    def report(self) -> session_pb2.SessionReport | None:
        """What everyone did, as far as this member can tell; there once `run` is over."""
        if self._report is None:
            return None
        return corrected_report(self._report, self.terms, self.left_out())

    def received(self) -> dict[int, dict[int, HeadRows]]:
        """Rows by sender and layer of those whose every layer came, if rows are kept at all."""
        return self._inbox.received()

    def receivers(self) -> list[str]:
        """Ids of the members that read rows of this one."""
        places = self.state.key_receivers(self._index)
        return [self.state.member(index).node_id for index in places]

    def cacheable_frames(self) -> CachedFrames:
        """Frames that this contributor sent, if they stand for its rows as a whole."""
        return self.reuse.cacheable_frames(self._sent, self.left_out(), self._sealing.content_key)

    def left_out(self) -> dict[int, tuple[int, str]]:
        """Member -> first layer at which this one had to go on without it, and why."""
        return self._losses.left_out()

    def late_members(self) -> dict[int, tuple[int, str]]:
        """The same of those that were late and not lost."""
        return self._losses.late_members()

    # -- model thread ----------------------------------------------------------------------------

    def send(self, layer: int, rows: KvRows, queries: Queries) -> None:
        self._check_own(rows, layer)
        if self.answers is not None:
            self._losses.check()
            self._timeline.lap(Activity.COMPUTE, layer)
            self.answers.keep(layer, rows)
            return
        self._make_room(layer)

        def write() -> bytes:
            begin_s = self._timeline.now()
            rotary, scorer = self._rotaries[layer], self._scorer
            frame = write_frame(self.member, layer, rows, queries, rotary, scorer, self._withheld)
            frame = self._sealing.seal(frame)
            self._timeline.add(Activity.ENCODE, layer, begin_s)
            return frame

        self._enqueue(layer, self._executor.submit(write))

    def _check_own(self, rows: KvRows, layer: int) -> None:
        """Say oneself what others would refuse."""
        try:
            self._bounds.check(HeadRows.of(rows), layer, self.member.node_id)
        except CorruptFrameError as error:
            others = ", ".join(self.state.member(index).node_id for index in self.route.senders)
            read = f"what it read of {others} was within them" if others else "it had read nothing"
            raise CorruptFrameError(
                f"{error}; it made them itself, and {read}: check its model, memory and precision"
            ) from None

    def send_frame(self, layer: int, frame: bytes) -> None:
        """Send a frame as it is, one that was cached as it left."""
        self._make_room(layer)
        encoded: Future[bytes] = Future()
        encoded.set_result(frame)
        self._enqueue(layer, encoded)

    def _make_room(self, layer: int) -> None:
        self._losses.check()
        self._timeline.lap(Activity.COMPUTE, layer)
        begun = time.monotonic()
        self._in_flight.acquire()  # released when the frame has left, or the session has ended
        self.room_wait_s += time.monotonic() - begun
        try:
            self._losses.check()  # the session may have ended meanwhile
        except FedAttnError:
            self._in_flight.release()
            raise
        self._timeline.lap(Activity.WAIT, layer)

    def _enqueue(self, layer: int, encoding: Future[bytes]) -> None:
        self._loop.call_soon_threadsafe(self._outgoing.put_nowait, (layer, encoding))

    def receive(self, layer: int) -> list[HeadRows]:
        self._timeline.lap(Activity.COMPUTE, layer)
        before_s = self._inbox.wait_s
        parts = self._inbox.take(layer)
        wait_s = self._inbox.wait_s - before_s
        came = LayerArrivals(layer=layer, wait_s=wait_s, arrivals=self._inbox.arrivals)
        seen = {"fedattn.block": layer, "fedattn.rows": came.num_rows}
        current_span().event("rows received", {**seen, "fedattn.wait.duration": wait_s})
        self._on_layer(came)
        return parts

    def ask(self, layer: int, queries: FloatArray, first_position: int) -> None:
        self._asking.ask(layer, queries, first_position)

    def parts(self, layer: int) -> Mapping[int, PartialAttention]:
        is_first = layer not in self._layers_asked  # later passes are part of decoding
        if is_first:
            self._timeline.lap(Activity.COMPUTE, layer)
        parts = self._asking.parts(layer)
        if is_first:
            self._layers_asked.add(layer)
            self._timeline.lap(Activity.WAIT, layer)
        return parts

    # -- event loop ------------------------------------------------------------------------------

    def finish(self, compute_s: float) -> None:
        """This member has sent and received all it needs."""
        self._timeline.lap(Activity.COMPUTE, self.terms.shape.num_layers - 1)
        late = self.late_members()
        done = pb.MemberDone(
            wait_s=self.wait_s,
            compute_s=compute_s,
            late=[
                pb.LateMember(member=member, from_layer=layer, reason=reason)
                for member, (layer, reason) in late.items()
            ],
        )
        self._outgoing.put_nowait(done)

    def fail(self, error: FedAttnError) -> None:
        """This member cannot go on: say why, behind nothing that has not left yet."""
        self._drop_outgoing()
        self._outgoing.put_nowait(decline_of(error))

    def cancel(self, error: FedAttnError) -> None:
        """End the session for this member; the model thread stops at its next step."""
        self._losses.end(error)
        if self.answers is not None:
            self.answers.stop(error)

    async def run(self, aggregator: AggregatorClient, member_token: str) -> None:
        """Move bytes until the aggregator ends the stream.

        Args:
            aggregator: relays the rows.
            member_token: lets this node in as this member.

        Raises:
            FedAttnError: the exchange failed; the model thread has been told too.
        """
        names = {NODE: self.member.node_id, SESSION: self.terms.session_id}
        with span("exchange", names) as exchanging:
            try:
                await self._run(aggregator, member_token)
            finally:
                exchanging.set("fedattn.sent.size", sum(self.bytes_sent.values()))

    async def _run(self, aggregator: AggregatorClient, member_token: str) -> None:
        timeout_s = self.terms.deadline_s + _DEADLINE_MARGIN_S
        try:
            with aggregator.exchange(self._requests(member_token), timeout_s) as responses:
                async for response in responses:
                    self._accept(response)
            self._losses.end(SessionAbortedError("the aggregator ended the exchange"))
        except FedAttnError as error:
            self._losses.end(error)
            raise
        finally:
            self._losses.end(InternalError("the exchange was cancelled"))
            if self.answers is not None:
                self.answers.stop()
            self._end_requests()
            self._release_all()

    async def _requests(self, member_token: str) -> AsyncIterator[pb.ExchangeRequest | bytes]:
        hello = pb.Hello(session_id=self.terms.session_id, member_token=member_token)
        yield pb.ExchangeRequest(hello=hello)
        receivers = self.state.key_receivers(self._index)
        keys = self._loop.run_in_executor(self._executor, self._sealing.keys_for, receivers)
        for key in await keys:
            yield pb.ExchangeRequest(key=key)
        while (item := await self._outgoing.get()) is not None:
            if isinstance(item, pb.MemberDone):
                item.timeline.extend(timeline_to_wire(self._timeline.slices()))
                yield pb.ExchangeRequest(done=item)
                return
            if isinstance(item, pb.Decline):
                yield pb.ExchangeRequest(failed=item)
                return
            if isinstance(item, pb.ExchangeRequest):
                yield item
                continue
            layer, encoding = item
            try:
                frame = await self._encoded(encoding)
            except FedAttnError as error:
                yield pb.ExchangeRequest(failed=decline_of(error))
                return
            begin_s = self._timeline.now()
            self.bytes_sent[layer] = len(frame)
            for chunk in split_frame(frame, layer):
                yield write_chunk(chunk, self._index)
            self._timeline.add(Activity.SEND, layer, begin_s)
            if self._keeps_frames:
                self._sent[layer] = frame
            self._in_flight.release()

    async def _encoded(self, encoding: Future[bytes]) -> bytes:
        try:
            return await asyncio.wrap_future(encoding)
        except Exception as error:  # tell the model thread, and the others
            known = error if isinstance(error, FedAttnError) else InternalError(_NOT_WRITTEN)
            if known is not error:
                log.exception("encoding_failed", session=self.terms.session_id)
            self._losses.end(known)
            raise known from error

    def _accept(self, response: Response) -> None:
        if isinstance(response, SentChunk):
            self._inbox.add(response.sender, response.chunk)
            return
        match response.WhichOneof("body"):
            case "key":
                self._sealing.accept(response.key)
            case "lost":
                self._losses.mark_lost(response.lost.member, response.lost.reason)
            case "queries":
                if self.answers is not None:
                    self.answers.add(response.queries)
            case "part":
                self._asking.add(response.part)
            case "last_queries":
                if self.answers is not None:
                    self.answers.end()
            case "report":
                self._report = response.report

    def _end_requests(self) -> None:
        """Drop what has not left, and end `_requests`, which the ended call no longer does."""
        self._drop_outgoing()
        self._outgoing.put_nowait(None)

    def _drop_outgoing(self) -> None:
        while not self._outgoing.empty():
            item = self._outgoing.get_nowait()
            if isinstance(item, tuple):
                item[1].cancel()

    def _release_all(self) -> None:
        """Nothing will leave any more: let a model thread that waits in `send` go on."""
        for _ in range(MAX_FRAMES_IN_FLIGHT):
            try:
                self._in_flight.release()
            except ValueError:
                return


def _sender(
    loop: asyncio.AbstractEventLoop, outgoing: asyncio.Queue[_Outgoing]
) -> Callable[[pb.ExchangeRequest], None]:
    """Takes messages from any thread.

    It knows no exchange: in a cycle the rows of one would wait for the garbage collector.
    """

    def send(message: pb.ExchangeRequest) -> None:
        loop.call_soon_threadsafe(outgoing.put_nowait, message)

    return send
