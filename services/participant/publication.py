"""One query at its publisher: open a session, exchange, answer, tell what happens."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog

from fedattn.core.errors import FedAttnError, NodeBusyError, SessionAbortedError
from fedattn.runtime import tracing
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.requests import statement_from_wire
from fedattn.wire.v1 import aggregator_pb2, session_pb2
from fedattn.wire.v1 import participant_pb2 as pb
from services.participant.answering import Answering, Emit
from services.participant.exchange import GrpcKvExchange
from services.participant.kv_cache import CachedState
from services.participant.node import ParticipantNode
from services.participant.publisher_session import PublisherSession
from services.participant.publisher_span import PublisherSpan, read_span, round_up
from services.participant.query import Query
from services.participant.report import add_influences, local_report
from services.participant.spans import query_span, tell_result

log = structlog.get_logger(__name__)

_REPORT_WITHIN_S = 15.0
_LAST_WORD_S = 2.0


class Publication:
    """One query from its arrival to its report. Lives on the event loop."""

    def __init__(self, node: ParticipantNode, aggregators: Aggregators, query: Query) -> None:
        self._node = node
        self._query = query
        self._loop = asyncio.get_running_loop()
        self._session = PublisherSession(node, aggregators, query)
        self._events: asyncio.Queue[pb.QueryEvent | None] = asyncio.Queue()
        emit = _emitter(self._loop, self._events)
        self._answering = Answering(node, query, self._session.arrived, emit)
        self._opened_s = 0.0

    async def run(self) -> AsyncGenerator[pb.QueryEvent, None]:
        """Events of the query in order; the last is its result.

        Raises:
            FedAttnError: the query failed.
        """
        with query_span(self._node, self._query.sampling) as query:
            async with aclosing(self._run()) as events:
                async for event in events:
                    if event.HasField("result"):
                        tell_result(query, event.result)
                    yield event

    async def _run(self) -> AsyncGenerator[pb.QueryEvent, None]:
        node, query = self._node, self._query
        place = node.admission.take(node.node_id, query.options.subject)
        with place, node.metrics.session("publisher"):
            node.prepare_decoder()
            opening = tracing.span("open session", {tracing.NODE: node.node_id})
            with opening, node.metrics.open_waits.time():
                opened, span = await self._open()
            tracing.current_span().set(tracing.SESSION, opened.start.terms.session_id)
            self._opened_s = time.monotonic() - self._session.arrived
            yield pb.QueryEvent(
                opened=pb.SessionOpened(
                    terms=opened.start.terms,
                    excluded=opened.excluded,
                    spends_approval=_spends_approval(opened.start),
                )
            )
            try:
                async with aclosing(self._exchange_and_answer(opened, span)) as events:
                    async for event in events:
                        yield event
            finally:
                node.threads.tidy()

    async def _open(self) -> tuple[aggregator_pb2.OpenSessionResponse, PublisherSpan]:
        """Settle who gives and is told what, and open the session for it."""
        node, query = self._node, self._query
        question = await node.threads.run(
            lambda: node.tokenizer.question(query.question, turns=query.turns)
        )
        disclosure = await self._session.prepare(round_up(len(question)))
        span = await node.threads.run(
            lambda: read_span(node, query, question, disclosure.node_tokens)
        )
        return await self._session.open(disclosure, span.reserved_len), span

    async def _exchange_and_answer(
        self, opened: aggregator_pb2.OpenSessionResponse, span: PublisherSpan
    ) -> AsyncGenerator[pb.QueryEvent, None]:
        exchange = await self._session.exchange(opened.start, self._answering.emit_layer)
        transfer = asyncio.create_task(
            exchange.run(self._session.server, opened.start.member_token)
        )
        try:
            state_key = exchange.reuse.state_key(span.context_version)
            release = self._session.claim(exchange, state_key)
        except NodeBusyError as error:
            await _end_unbegun(exchange, transfer, error)
            raise
        answer = asyncio.create_task(self._node.compute(lambda: self._answer(exchange, span)))
        answer.add_done_callback(lambda _: self._events.put_nowait(None))
        deadline = self._loop.call_later(
            self._session.remaining_s, lambda: self._stop(exchange, self._session.too_late())
        )
        try:
            while (event := await self._events.get()) is not None:
                yield event
            result = await answer
            within_s = max(0.1, min(_REPORT_WITHIN_S, self._session.remaining_s))
            await _await_report(transfer, within_s)
            report = exchange.report or local_report(
                exchange.terms, exchange.left_out(), exchange.late_members(), opened.excluded
            )
            add_influences(report, result.report)
            result.report.CopyFrom(report)
            result.budget_steps = self._session.budget_steps
            if self._query.options.wants_timeline:
                self._complete_timelines(result, exchange.terms.layout.publisher.node_id)
            _describe_own(result.report, self._node.node_id, span)
            release()  # nothing computes any more, and what is kept counts by itself
            self._cache(exchange, span)
            log.info("answered", session=exchange.terms.session_id, tokens=result.num_tokens)
            yield pb.QueryEvent(result=result)
        finally:
            deadline.cancel()
            self._stop(exchange, SessionAbortedError("the query was cancelled"))
            transfer.cancel()
            try:
                await asyncio.gather(transfer, answer, return_exceptions=True)
            finally:  # whoever is cancelled once may be so again
                release()

    def _answer(self, exchange: GrpcKvExchange, span: PublisherSpan) -> pb.QueryResult:
        """Runs in a model thread."""
        key = exchange.reuse.state_key(span.context_version)
        known = self._session.known_state(key, exchange)
        return self._answering.run(
            exchange,
            span,
            known,
            self._session.passages,
            lambda compute_s: self._loop.call_soon_threadsafe(exchange.finish, compute_s),
        )

    def _cache(self, exchange: GrpcKvExchange, span: PublisherSpan) -> None:
        """Keep for later queries what this one received and computed."""
        key = exchange.reuse.state_key(span.context_version)
        state = CachedState(self._answering.state, exchange.reuse.state_lifetime_s)
        self._session.cache_rows(exchange)
        self._session.cache_state(key, state, exchange)

    def _complete_timelines(self, result: pb.QueryResult, own_id: str) -> None:
        """Count from the query's arrival, and add what the publisher did outside the exchange."""
        for member in result.report.members:
            for piece in member.timeline:
                piece.begin_s += self._opened_s
        # by its id, which is always there: roles in the report are the aggregator's word
        publisher = next(member for member in result.report.members if member.node_id == own_id)
        publisher.timeline.add(activity=session_pb2.ACTIVITY_OPEN, duration_s=self._opened_s)
        publisher.timeline.add(
            activity=session_pb2.ACTIVITY_GENERATE,
            begin_s=result.time_to_first_token_s,
            duration_s=result.decode_s,
        )

    def _stop(self, exchange: GrpcKvExchange, error: FedAttnError) -> None:
        """Make the model thread end with this error at its next step."""
        self._answering.stop(error)
        exchange.cancel(error)


def _emitter(loop: asyncio.AbstractEventLoop, events: asyncio.Queue[pb.QueryEvent | None]) -> Emit:
    """Takes events from any thread.

    It knows no `Publication`: in a cycle the rows of one would wait for the garbage collector.
    """

    def emit(event: pb.QueryEvent) -> None:
        loop.call_soon_threadsafe(events.put_nowait, event)

    return emit


async def _end_unbegun(
    exchange: GrpcKvExchange, transfer: asyncio.Task[None], error: FedAttnError
) -> None:
    """Tell the others that this node cannot go on, so that nobody waits for it."""
    exchange.fail(error)
    await asyncio.wait({transfer}, timeout=_LAST_WORD_S)
    transfer.cancel()
    await asyncio.gather(transfer, return_exceptions=True)


async def _await_report(transfer: asyncio.Task[None], within_s: float) -> None:
    """Wait for the aggregator's last word, which may be lost with it during decoding."""
    try:
        async with asyncio.timeout(within_s):
            await transfer
    except (FedAttnError, TimeoutError) as error:
        log.warning("report_lost", error=str(error))


def _spends_approval(start: aggregator_pb2.SessionStart) -> bool:
    """Whether a contributor says so; its word is verified where the session is agreed on."""
    return any(statement_from_wire(one.payload).is_approved for one in start.statements)


def _describe_own(report: session_pb2.SessionReport, own_id: str, span: PublisherSpan) -> None:
    """What took part of the publisher's own text, which it tells nobody but its client."""
    own = next(member for member in report.members if member.node_id == own_id)
    own.span_len = len(span.token_ids)
    own.num_passages, own.text_len = len(span.passages), len(span.context)
