"""`KvExchange` over gRPC: one stream to the aggregator for one member of one session."""

from collections.abc import Mapping
from concurrent.futures import Executor

from fedattn.core.asked import PartialAttention, query_codec_by_name
from fedattn.core.errors import (
    CorruptFrameError,
    FedAttnError,
    InternalError,
    SessionAbortedError,
)
from fedattn.core.routing import Route
from fedattn.core.session import SessionState
from fedattn.core.spans import Member
from fedattn.core.terms import SessionTerms
from fedattn.core.timeline import Activity, Timeline
from fedattn.core.transfer import write_frame
from fedattn.core.types import FloatArray, HeadRows, KvRows, Queries
from fedattn.model.loading import LoadedModel
from fedattn.runtime.tracing import NODE, SESSION, current_span, span
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.exchange import Response, SentChunk
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.participant.answers import Answers
from services.participant.arrivals import LayerArrivals
from services.participant.asking import Asking
from services.participant.exchange_options import ContributorOptions, PublisherOptions
from services.participant.inbox import RowInbox
from services.participant.kv_cache import CachedFrames
from services.participant.losses import Losses
from services.participant.report import corrected_report
from services.participant.sealing import NoSealing, Sealing
from services.participant.session_reuse import SessionReuse
from services.participant.uplink import Uplink

_DEADLINE_MARGIN_S = 10.0


class GrpcKvExchange:
    """Sends own rows and receives others' while the model computes.

    The model thread calls `send` and `receive`; encoding happens in the executor; `run` moves
    bytes on the event loop. At most MAX_FRAMES_IN_FLIGHT own frames wait to leave (`Uplink`).

    Args:
        terms: of the session.
        index: place of this node.
        executor: encodes frames.
        model: whose rows these are.
        sealing: how frames leave and are read; None for as they are.
        keeps: whether frames sent and rows received are kept for later sessions.
        publisher: what this member says if it publishes.
        contributor: what it says if it contributes.

    Attributes:
        answers: of a contributor that is asked.
        bytes_sent: of frames, or of what it answered, by layer.

    Raises:
        SessionStateError: the terms count on rows that are not cached here.
    """

    def __init__(  # noqa: PLR0913 - spelt out
        self,
        terms: SessionTerms,
        index: int,
        executor: Executor,
        model: LoadedModel,
        *,
        sealing: Sealing | None = None,
        keeps: bool = False,
        publisher: PublisherOptions | None = None,
        contributor: ContributorOptions | None = None,
    ) -> None:
        publisher = publisher or PublisherOptions()
        contributor = contributor or ContributorOptions()
        self.terms = terms
        self.state = SessionState(terms.layout, terms.shape)
        self.reuse = SessionReuse(self.state, index)
        self._index = index
        self._timeline = Timeline(is_on=terms.wants_timeline)
        is_publisher = self.state.is_publisher(index)
        self._sealing = sealing or NoSealing()
        required = publisher.required
        self._losses = Losses(self.state, terms.min_participants if is_publisher else 0, required)
        self._inbox = RowInbox(
            self.state,
            index,
            model.rotaries,
            bounds=model.row_bounds,
            sealing=self._sealing,
            progress_timeout_s=terms.progress_timeout_s,
            losses=self._losses,
            cached=self.reuse.find_cached(publisher.cached),
            keeps_rows=keeps and is_publisher,
            timeline=self._timeline,
        )
        self._uplink = Uplink(
            self.state,
            index,
            executor,
            sealing=self._sealing,
            losses=self._losses,
            timeline=self._timeline,
            keeps_frames=keeps and not is_publisher,
        )
        self._asking = Asking(
            self.state,
            self.route,
            codec=query_codec_by_name(publisher.query_codec),
            sealing=self._sealing,
            losses=self._losses,
            bounds=model.row_bounds,
            progress_timeout_s=terms.progress_timeout_s,
            send=self._uplink.send,
        )
        self._layers_asked: set[int] = set()
        self.answers: Answers | None = None
        self.bytes_sent = self._uplink.bytes_sent
        if self.route.answers:
            assert contributor.asked is not None, "who is asked keeps its rows"
            self.answers = Answers(
                contributor.asked,
                (index, len(self.state.routes) - 1),
                (model.sizes.num_query_heads, model.shape.head_dim),
                sealing=self._sealing,
                send=self._uplink.send,
            )
            self.bytes_sent = self.answers.bytes_sent
        self._scorer, self._withheld = contributor.scorer, contributor.withheld
        self._rotaries, self._bounds = model.rotaries, model.row_bounds
        self._on_layer = publisher.on_layer
        self._report: session_pb2.SessionReport | None = None

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
    def room_wait_s(self) -> float:
        """Time it has waited for own rows to leave so far, seconds."""
        return self._uplink.room_wait_s

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
        sent, content_key = self._uplink.frames_sent, self._sealing.content_key
        return self.reuse.cacheable_frames(sent, self.left_out(), content_key)

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
        self._uplink.make_room(layer)

        def write() -> bytes:
            begin_s = self._timeline.now()
            rotary, scorer = self._rotaries[layer], self._scorer
            frame = write_frame(self.member, layer, rows, queries, rotary, scorer, self._withheld)
            frame = self._sealing.seal(frame)
            self._timeline.add(Activity.ENCODE, layer, begin_s)
            return frame

        self._uplink.write(layer, write)

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
        self._uplink.make_room(layer)
        self._uplink.send_frame(layer, frame)

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
        self._uplink.finish(done)

    def fail(self, error: FedAttnError) -> None:
        """This member cannot go on: say why, behind nothing that has not left yet."""
        self._uplink.fail(error)

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
            requests = self._uplink.requests(self.terms.session_id, member_token)
            with aggregator.exchange(requests, timeout_s) as responses:
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
            self._uplink.close()

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
