"""A publisher that keeps warm holds the rows of a default query before anybody asks."""

import asyncio
from pathlib import Path

import pytest

from fedattn.core.errors import AggregatorUnavailableError, NoContributorsError
from fedattn.core.profile import CompressionWish
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.convert import wish_to_wire
from fedattn.wire.v1 import session_pb2
from services.participant import warming
from services.participant.control import Membership
from services.participant.exchange import GrpcKvExchange
from services.participant.node import ParticipantNode
from services.participant.query import Query, default_query
from services.participant.warming import keep_warm, warm
from tests.harness.channels import aggregators_at
from tests.harness.networks import ask, running_network
from tests.harness.tiny import tiny_model

SELDOM_S = 3600.0
DEFAULTS = {"plan": "auto", "compression": wish_to_wire(CompressionWish())}


async def test_first_question_finds_rows_fetched_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_network(tiny_model("llama"), tmp_path) as network:
        tried, is_warm = 0, asyncio.Event()

        async def watched(
            node: ParticipantNode, aggregators: Aggregators, query: Query
        ) -> session_pb2.SessionReport:
            """Fails once, then fetches."""
            nonlocal tried
            tried += 1
            if tried == 1:
                raise NoContributorsError("nobody is there yet")
            report = await warm(node, aggregators, query)
            is_warm.set()
            return report

        monkeypatch.setattr(warming, "warm", watched)
        joined = Membership()
        async with aggregators_at(network.aggregator) as aggregators:
            node = network.nodes["publisher"]
            keeping = [
                asyncio.create_task(keep_warm(node, aggregators, joined, every_s=SELDOM_S))
                for _ in range(2)  # the first one's look fails and it goes on sleeping
            ]
            joined.turn(joined=True)
            await is_warm.wait()
            still_keeping = [not task.done() for task in keeping]
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
        first = (await ask(network, **DEFAULTS))[-1].result
    assert still_keeping == [True, True]
    assert [member.row_source for member in first.report.members[:-1]] == [
        session_pb2.ROW_SOURCE_PUBLISHER_CACHE,
        session_pb2.ROW_SOURCE_PUBLISHER_CACHE,
    ]


async def test_a_session_that_ends_without_its_report_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GrpcKvExchange, "report", None)
    async with running_network(tiny_model("llama"), tmp_path) as network:
        node = network.nodes["publisher"]
        async with aggregators_at(network.aggregator) as aggregators:
            query = default_query(node.prefiller.shape.num_layers, node.profile)
            with pytest.raises(AggregatorUnavailableError, match="without its report"):
                await warm(node, aggregators, query)
