"""Fetching others' rows ahead of any question, once or again and again."""

import asyncio
from dataclasses import replace

import structlog

from fedattn.core.errors import AggregatorUnavailableError, FedAttnError, InvalidRequestError
from fedattn.core.request import Exchange
from fedattn.runtime.tracing import NODE, span
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.v1 import session_pb2
from services.participant.control import Membership
from services.participant.exchange import GrpcKvExchange
from services.participant.node import ParticipantNode
from services.participant.publisher_session import PublisherSession
from services.participant.query import Query, default_query

log = structlog.get_logger(__name__)


async def warm(
    node: ParticipantNode, aggregators: Aggregators, query: Query
) -> session_pb2.SessionReport:
    """Fetch the contributors' rows and cache them; computes nothing here.

    Raises:
        FedAttnError: no session could be opened, or it failed.
    """
    place = node.admission.take(node.node_id, query.options.subject)
    with place, span("warm", {NODE: node.node_id}):
        session = PublisherSession(node, aggregators, _for_rows(query))
        opened = await session.open(await session.prepare(), span_len=1)
        exchange = await session.exchange(opened.start)
        release = session.claim(exchange)
        transfer = asyncio.create_task(exchange.run(session.server, opened.start.member_token))
        try:
            async with asyncio.timeout(session.remaining_s):
                await node.threads.run(lambda: _receive_all(exchange))
                exchange.finish(0.0)
                await transfer
        except TimeoutError:
            exchange.cancel(session.too_late())
            raise session.too_late() from None
        finally:
            transfer.cancel()
            try:
                await asyncio.gather(transfer, return_exceptions=True)
            finally:  # whoever is cancelled once may be so again
                release()
        session.cache_rows(exchange)
        if exchange.report is None:
            raise AggregatorUnavailableError("the aggregator ended the session without its report")
        return exchange.report


def _for_rows(query: Query) -> Query:
    """The query for nodes that send rows: those that are asked have nothing to fetch.

    Raises:
        InvalidRequestError: it wants to ask.
    """
    if query.options.exchange is Exchange.ASK:
        raise InvalidRequestError(
            "exchange ask: rows that stay with their owners cannot be fetched ahead; leave it out"
        )
    return replace(query, options=replace(query.options, exchange=Exchange.ROWS))


def _receive_all(exchange: GrpcKvExchange) -> None:
    """Wait for the rows of every layer."""
    for layer in sorted(exchange.route.receives):
        exchange.receive(layer)


async def keep_warm(
    node: ParticipantNode, aggregators: Aggregators, joined: Membership, every_s: float
) -> None:
    """Hold the rows that a query with default settings needs; unchanged ones move no bytes.

    Args:
        node: a publisher.
        aggregators: where it opens sessions.
        joined: whether it can open sessions.
        every_s: seconds between two looks.
    """
    num_layers = node.prefiller.shape.num_layers
    while True:
        await joined.wait_joined()
        query = default_query(num_layers, node.profile)  # the node may have found one meanwhile
        try:
            report = await warm(node, aggregators, query)
            log.debug("warm", members=len(report.members))
        except FedAttnError as error:
            log.info("not_warm", code=error.code)
        await asyncio.sleep(every_s)
