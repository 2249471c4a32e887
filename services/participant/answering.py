"""The model thread of one query: prefill with exchange, decode, and tell what happens."""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import asdict

import structlog

from fedattn.core.agreement import PassageSpan
from fedattn.core.errors import FedAttnError
from fedattn.core.sampling import SamplingParams
from fedattn.model.drafted import DraftCounts, generate_drafted
from fedattn.model.layer_cache import LayerCache
from fedattn.model.prefill import PrefillResult
from fedattn.model.text import TextStream
from fedattn.runtime.tracing import NODE, span
from fedattn.wire.v1 import participant_pb2 as pb
from services.participant.arrivals import LayerArrivals
from services.participant.exchange import GrpcKvExchange
from services.participant.kv_cache import CachedState
from services.participant.node import ParticipantNode
from services.participant.publisher_span import PublisherSpan
from services.participant.query import Query
from services.participant.sources import find_sources, place_passages
from services.participant.spans import prefill_span

log = structlog.get_logger(__name__)

Emit = Callable[[pb.QueryEvent], None]
"""Takes an event from the model thread."""


class Answering:
    """Computes one answer in a model thread; the event loop may stop it.

    Args:
        node: the publisher.
        query: what is asked.
        arrived: when, by `time.monotonic`.
        emit: takes events.
    """

    def __init__(self, node: ParticipantNode, query: Query, arrived: float, emit: Emit) -> None:
        self._node, self._query = node, query
        self._arrived = arrived
        self._emit = emit
        self._stopped_by: FedAttnError | None = None
        self.state: list[LayerCache] = []
        """Rows of every block before the question, once computed."""

    def stop(self, error: FedAttnError) -> None:
        """End with this error at the next step."""
        self._stopped_by = self._stopped_by or error

    def run(
        self,
        exchange: GrpcKvExchange,
        own: PublisherSpan,
        known: CachedState | None,
        passages: Mapping[int, tuple[PassageSpan, ...]],
        on_exchanged: Callable[[float], object],
    ) -> pb.QueryResult:
        """The answer; of its report, the influence of every member.

        Args:
            exchange: of the session.
            own: span of the publisher.
            known: rows before the question, if they are cached.
            passages: of the contributors, by their places.
            on_exchanged: told the seconds of computing, once the network is not needed any more.

        Raises:
            FedAttnError: the session failed, or `stop` was called.
        """
        begun = time.monotonic()
        node_id = self._node.node_id
        with prefill_span(node_id, exchange):
            prefill = self._prefill(exchange, own, known)
        compute_s = time.monotonic() - begun - exchange.wait_s
        asking = exchange if exchange.route.asked else None
        if asking is None:
            on_exchanged(compute_s)
        self._node.metrics.prefilled(
            compute_s, row_wait_s=exchange.wait_s, room_wait_s=exchange.room_wait_s
        )
        with span("decode", {NODE: node_id}):
            result, answer = self._decode(prefill, asks=asking is not None)
        layout, model = exchange.terms.layout, self._node.prefiller.model
        placed = place_passages(layout, passages, own.passages)
        with span("find sources", {NODE: node_id}):
            try:
                result.MergeFrom(find_sources(model, prefill, answer, placed, layout, asking))
            except FedAttnError as error:  # the answer is there, and was told
                if asking is None:
                    raise
                log.warning("no_sources", session=exchange.terms.session_id, error=str(error))
        if asking is not None:
            on_exchanged(time.monotonic() - begun - exchange.wait_s)
        support = result.support if result.HasField("support") else 0.0
        result.is_supported = support >= self._query.min_support
        result.prompt_tokens = prefill.next_position
        return result

    def _prefill(
        self, exchange: GrpcKvExchange, own: PublisherSpan, known: CachedState | None
    ) -> PrefillResult:
        prefiller, member = self._node.prefiller, own.place(exchange.member)
        if known is not None:
            return prefiller.resume(member, own.question, known.layers)
        prefix = own.prefix if exchange.terms.layout.prefix_len else []
        prefill = prefiller.publish(member, prefix, own.token_ids, exchange)
        self.state = prefill.cache.rows_before(len(own.question))
        return prefill

    def _tokens(
        self, prefill: PrefillResult, counts: DraftCounts | None
    ) -> Generator[int, None, None]:
        """Of the answer: in one batch with other answers, or by itself where others are asked."""
        node, sampling = self._node, self._query.sampling
        if counts is None:
            yield from node.decode_loop.generate(prefill, sampling)
            return
        with node.prefiller.cores.prefilling() as turn:
            prefill.cache.between_blocks = turn.away
            model = node.prefiller.model
            yield from generate_drafted(model, prefill, sampling, counts=counts)

    def _decode(self, prefill: PrefillResult, *, asks: bool) -> tuple[pb.QueryResult, list[int]]:
        """The text, and the tokens it is made of."""
        counts = DraftCounts() if asks else None
        node, sampling = self._node, self._query.sampling
        stream = TextStream(node.tokenizer.detokenizer(), sampling.stop)
        pieces: list[str] = []
        answer: list[int] = []
        first_token_at = token_at = 0.0
        with closing(self._tokens(prefill, counts)) as tokens:
            for token in tokens:
                answer.append(token)
                before, token_at = token_at, time.monotonic()
                if before:
                    node.metrics.between_tokens.observe(token_at - before)
                first_token_at = first_token_at or token_at
                pieces.append(self._emit_text(stream.push(token)))
                if stream.stopped:
                    break
                if self._stopped_by is not None:
                    raise self._stopped_by
        ended = time.monotonic()
        node.metrics.tokens.inc(len(answer))
        pieces.append(self._emit_text(stream.finish()))
        first_token_at = first_token_at or ended
        node.metrics.first_token.observe(first_token_at - self._arrived)
        result = pb.QueryResult(
            text="".join(pieces),
            finish_reason=_finish_reason(stream, len(answer), sampling),
            num_tokens=len(answer),
            time_to_first_token_s=first_token_at - self._arrived,
            decode_s=ended - first_token_at,
            asked=None if counts is None else pb.AskedDecoding(**asdict(counts)),
        )
        return result, answer

    def emit_layer(self, came: LayerArrivals) -> None:
        """The rows of a layer have come; a `LayerListener`."""
        progress = pb.LayerProgress(
            layer=came.layer,
            num_rows=came.num_rows,
            wait_s=came.wait_s,
            arrivals=[pb.Arrival(**asdict(arrival)) for arrival in came.arrivals],
        )
        self._emit(pb.QueryEvent(layer=progress))

    def _emit_text(self, text: str) -> str:
        if text:
            self._emit(pb.QueryEvent(token=pb.TokenText(text=text)))
        return text


def _finish_reason(
    stream: TextStream, num_tokens: int, sampling: SamplingParams
) -> "pb.FinishReason.ValueType":
    if stream.stopped:
        return pb.FINISH_REASON_STOP
    if num_tokens == sampling.max_new_tokens:
        return pb.FINISH_REASON_LENGTH
    return pb.FINISH_REASON_END
