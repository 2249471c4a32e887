"""The publisher's part: open a session, exchange, decode, tell what happens."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import grpc
import structlog

from fedattn.core.errors import (
    AggregatorUnavailableError,
    ContextTooLongError,
    ContextUnreadableError,
    DeadlineExceededError,
    FedAttnError,
    SessionAbortedError,
)
from fedattn.core.sampling import SamplingParams
from fedattn.model.cache import LayerCache
from fedattn.model.decode import TextStream, generate_tokens
from fedattn.wire.convert import (
    compression_to_wire,
    context_to_wire,
    prefix_to_wire,
)
from fedattn.wire.protocol import MAX_PUBLISHER_KEYS
from fedattn.wire.status import error_from_rpc
from fedattn.wire.stubs import AggregatorStub
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import participant_pb2, session_pb2
from services.participant.exchange import GrpcKvExchange, LayerListener
from services.participant.kv_cache import CachedState
from services.participant.node import ParticipantNode
from services.participant.query import Query

log = structlog.get_logger(__name__)

_REPORT_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """The publisher's own tokens, and the version of its context."""

    context: list[int]
    question: list[int]
    context_version: bytes

    @property
    def token_ids(self) -> list[int]:
        return self.context + self.question


class Publication:
    """One query from its arrival to its report. Lives on the event loop."""

    def __init__(
        self,
        node: ParticipantNode,
        stub: AggregatorStub,
        query: Query,
        aggregator_address: str,
    ) -> None:
        self._node = node
        self._stub = stub
        self._query = query
        self._arrived = time.monotonic()
        self._events: asyncio.Queue[participant_pb2.QueryEvent | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._stopped_by: FedAttnError | None = None
        self._opened_s = 0.0
        self._held = {} if query.no_reuse else node.rows.snapshot(MAX_PUBLISHER_KEYS)
        self._states = {} if query.no_reuse else node.states.snapshot(MAX_PUBLISHER_KEYS)
        self._state_key = b""
        self._state: list[LayerCache] = []
        self._unreachable = AggregatorUnavailableError(
            f"the publisher cannot reach its aggregator at {aggregator_address}"
        )

    async def run(self) -> AsyncGenerator[participant_pb2.QueryEvent, None]:
        """Events of the query in order; the last is its result.

        Raises:
            FedAttnError: the query failed.
        """
        self._node.enter()
        try:
            with self._node.metrics.session("publisher"):
                self._node.prepare_decoder()
                prefix, span = await self._node.run(self._tokenize)
                opened = await self._open(prefix, len(span.token_ids))
                self._opened_s = time.monotonic() - self._arrived
                yield participant_pb2.QueryEvent(
                    opened=participant_pb2.SessionOpened(
                        layout=opened.start.layout, excluded=opened.excluded
                    )
                )
                answering = self._exchange_and_answer(opened.start, prefix, span)
                async with aclosing(answering) as events:
                    async for event in events:
                        yield event
        finally:
            self._node.leave()

    async def _exchange_and_answer(
        self, start: pb.SessionStart, prefix: list[int], span: _Span
    ) -> AsyncGenerator[participant_pb2.QueryEvent, None]:
        exchange = self._exchange(start, self._tell_layer)
        self._state_key = exchange.state_key(span.context_version)
        known = None if exchange.route.senders else self._states.get(self._state_key)
        own_prefix = prefix if exchange.prefix_len else []
        transfer = asyncio.create_task(exchange.run(self._stub))
        answer = asyncio.create_task(
            self._node.compute(lambda: self._answer(exchange, own_prefix, span, known))
        )
        answer.add_done_callback(lambda _: self._events.put_nowait(None))
        deadline = self._loop.call_later(
            self._remaining_s(),
            lambda: self._stop(exchange, self._too_late()),
        )
        try:
            while (event := await self._events.get()) is not None:
                yield event
            result = await answer
            within_s = max(0.1, min(_REPORT_WITHIN_S, self._remaining_s()))
            result.report.CopyFrom(await _final_report(exchange, transfer, within_s))
            if self._query.timeline:
                self._complete_timelines(result)
            self._hold(exchange)
            log.info("answered", session=start.layout.session_id, tokens=result.num_tokens)
            yield participant_pb2.QueryEvent(result=result)
        finally:
            deadline.cancel()
            self._stop(exchange, SessionAbortedError("the query was cancelled"))
            transfer.cancel()
            await asyncio.gather(transfer, answer, return_exceptions=True)

    async def warm(self) -> session_pb2.SessionReport:
        """Fetch the contributors' rows and hold them; computes nothing here.

        Raises:
            FedAttnError: no session could be opened, or it failed.
        """
        self._node.enter()
        try:
            opened = await self._open(list(self._node.prefix), span_len=1)
            exchange = self._exchange(opened.start, lambda *_: None)
            transfer = asyncio.create_task(exchange.run(self._stub))
            try:
                async with asyncio.timeout(self._remaining_s()):
                    await self._node.run(lambda: _receive_all(exchange))
                    exchange.finish(0.0)
                    await transfer
            except TimeoutError:
                exchange.cancel(self._too_late())
                raise self._too_late() from None
            finally:
                transfer.cancel()
                await asyncio.gather(transfer, return_exceptions=True)
            self._hold(exchange)
            report = exchange.report or exchange.local_report()
            report.members.extend(opened.excluded if exchange.report is None else ())
            return report
        finally:
            self._node.leave()

    def _exchange(self, start: pb.SessionStart, on_layer: LayerListener) -> GrpcKvExchange:
        return GrpcKvExchange(
            start,
            self._node.node_id,
            self._node.threads,
            self._node.prefiller.model.rotary,
            on_layer,
            held=self._held,
            keeps=self._node.rows.max_bytes > 0,
        )

    def _hold(self, exchange: GrpcKvExchange) -> None:
        """Hold on to rows for later queries."""
        self._node.rows.touch(exchange.cached_keys)
        self._node.states.touch([self._state_key])
        for key, rows in exchange.received_rows().items():
            self._node.rows.put(key, rows)
        if self._state and exchange.is_clean:
            state = CachedState(self._state, exchange.rows_lifetime_s)
            self._node.states.put(self._state_key, state)

    def _complete_timelines(self, result: participant_pb2.QueryResult) -> None:
        """Count from the query's arrival, and add what the publisher did outside the exchange."""
        for member in result.report.members:
            for piece in member.timeline:
                piece.begin_s += self._opened_s
        publisher = next(m for m in result.report.members if m.role == session_pb2.ROLE_PUBLISHER)
        publisher.timeline.add(activity=session_pb2.ACTIVITY_OPEN, duration_s=self._opened_s)
        publisher.timeline.add(
            activity=session_pb2.ACTIVITY_GENERATE,
            begin_s=result.time_to_first_token_s,
            duration_s=result.decode_s,
        )

    def _stop(self, exchange: GrpcKvExchange, error: FedAttnError) -> None:
        """Make the model thread end with this error at its next step."""
        self._stopped_by = self._stopped_by or error
        exchange.cancel(error)

    def _remaining_s(self) -> float:
        return self._query.deadline_s - (time.monotonic() - self._arrived)

    def _too_late(self) -> FedAttnError:
        return DeadlineExceededError(
            f"the query did not end within its deadline of {self._query.deadline_s:g} s; "
            f"allow more time, or ask fewer contributors"
        )

    def _tokenize(self) -> tuple[list[int], _Span]:
        tokenizer, limit = self._node.tokenizer, self._node.prefiller.model.max_positions
        prefix = list(self._node.prefix)
        try:
            own = self._node.context.snapshot()
        except ContextUnreadableError as error:
            raise ContextUnreadableError(f"publisher {self._node.node_id}: {error}") from None
        question = tokenizer.question(self._query.question)
        token_ids = own.token_ids + question
        if len(prefix) + len(token_ids) + self._query.sampling.max_new_tokens > limit:
            raise ContextTooLongError(
                f"the publisher's context and question have {len(token_ids)} tokens, the prefix "
                f"{len(prefix)}, and {self._query.sampling.max_new_tokens} may be decoded, but "
                f"the model's window is {limit}; shorten them"
            )
        return prefix, _Span(context=own.token_ids, question=question, context_version=own.version)

    async def _open(self, prefix: list[int], span_len: int) -> pb.OpenSessionResponse:
        query = self._query
        request = pb.OpenSessionRequest(
            node_id=self._node.node_id,
            span_len=span_len,
            prefix=prefix_to_wire(query.prefix, prefix),
            contributors=query.contributors,
            contributor_sync_layers=query.plans.contributors.layers,
            publisher_sync_layers=query.plans.publisher.layers,
            compression=compression_to_wire(query.compression),
            budget=query.budget,
            max_new_tokens=query.sampling.max_new_tokens,
            min_participants=query.min_participants,
            deadline_s=max(0.001, self._remaining_s()),
            node_token=self._node.token,
            cached_keys=list(self._held),
            no_reuse=query.no_reuse,
            timeline=query.timeline,
            independent=query.independent,
            context=context_to_wire(self._node.context.summary),
        )
        try:
            return await self._stub.OpenSession(request, timeout=max(0.001, self._remaining_s()))
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self._unreachable) from None

    # -- model thread ----------------------------------------------------------------------------

    def _answer(
        self,
        exchange: GrpcKvExchange,
        prefix: list[int],
        span: _Span,
        known: CachedState | None,
    ) -> participant_pb2.QueryResult:
        """Prefill with exchange, or go on from what is known; then decode. Tells what happens."""
        begun = time.monotonic()
        node, sampling = self._node, self._query.sampling
        prefiller, member = node.prefiller, exchange.member
        if known is not None:
            prefill = prefiller.resume(member, span.question, known.layers)
        else:
            prefill = prefiller.publish(member, prefix, span.token_ids, exchange)
            if self._state_key:
                self._state = prefill.cache.rows_before(len(span.question))
        compute_s = time.monotonic() - begun - exchange.wait_s
        self._loop.call_soon_threadsafe(exchange.finish, compute_s)
        node.metrics.compute_seconds.inc(compute_s)
        node.metrics.wait_seconds.inc(exchange.wait_s)
        stream = TextStream(node.tokenizer.decode, sampling.stop)
        first_token_s, decode_begun = 0.0, 0.0
        num_tokens = 0
        text = ""
        for token in generate_tokens(node.prefiller.model, prefill, sampling, node.decoder):
            num_tokens += 1
            if num_tokens == 1:
                decode_begun = time.monotonic()
                first_token_s = decode_begun - self._arrived
            text += self._tell_text(stream.push(token))
            if stream.stopped:
                break
            if self._stopped_by is not None:
                raise self._stopped_by
        now = time.monotonic()
        node.metrics.tokens.inc(num_tokens)
        text += self._tell_text(stream.finish())
        return participant_pb2.QueryResult(
            text=text,
            finish_reason=_finish_reason(stream, num_tokens, sampling),
            num_tokens=num_tokens,
            time_to_first_token_s=first_token_s if num_tokens else now - self._arrived,
            decode_s=now - decode_begun if num_tokens else 0.0,
            prompt_tokens=exchange.member.span.stop,
        )

    def _tell_layer(self, layer: int, num_rows: int, wait_s: float) -> None:
        self._tell(
            participant_pb2.QueryEvent(
                layer=participant_pb2.LayerProgress(layer=layer, num_rows=num_rows, wait_s=wait_s)
            )
        )

    def _tell_text(self, text: str) -> str:
        if text:
            self._tell(participant_pb2.QueryEvent(token=participant_pb2.TokenText(text=text)))
        return text

    def _tell(self, event: participant_pb2.QueryEvent) -> None:
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)


def _receive_all(exchange: GrpcKvExchange) -> None:
    """Wait for the rows of every layer."""
    for layer in sorted(exchange.route.receives):
        exchange.receive(layer)


async def _final_report(
    exchange: GrpcKvExchange, transfer: asyncio.Task[None], within_s: float
) -> session_pb2.SessionReport:
    """The aggregator's report, or what is known here if it was lost during decoding."""
    try:
        async with asyncio.timeout(within_s):
            await transfer
    except (FedAttnError, TimeoutError) as error:
        log.warning("report_lost", error=str(error))
    return exchange.report or exchange.local_report()


def _finish_reason(
    stream: TextStream, num_tokens: int, sampling: SamplingParams
) -> "participant_pb2.FinishReason.ValueType":
    if stream.stopped:
        return participant_pb2.FINISH_REASON_STOP
    if num_tokens == sampling.max_new_tokens:
        return participant_pb2.FINISH_REASON_LENGTH
    return participant_pb2.FINISH_REASON_END
