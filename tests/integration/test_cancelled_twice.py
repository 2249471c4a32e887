"""A session that is cancelled, and once more while it ends, gives its memory back."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedattn.wire.aggregators import Aggregators
from services.participant.exchange import GrpcKvExchange
from services.participant.node import ParticipantNode
from services.participant.publication import Publication
from services.participant.query import Query, default_query
from services.participant.warming import warm
from tests.harness.channels import aggregators_at
from tests.harness.networks import running_network
from tests.harness.tiny import tiny_model, words

Session = Callable[[ParticipantNode, Aggregators, Query], Awaitable[object]]


async def publish(node: ParticipantNode, aggregators: Aggregators, query: Query) -> None:
    async for _ in Publication(node, aggregators, query).run():
        pass


@pytest.mark.parametrize("session", [publish, warm])
async def test_memory_is_given_back(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ending = asyncio.Event(), asyncio.Event()
    run = GrpcKvExchange.run

    async def slow_to_end(exchange: GrpcKvExchange, *given: Any) -> None:
        if exchange.member.node_id != "publisher":
            return await run(exchange, *given)
        begun.set()
        try:
            await run(exchange, *given)
        finally:
            ending.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(GrpcKvExchange, "run", slow_to_end)
    async with (
        running_network(tiny_model("llama"), tmp_path) as network,
        aggregators_at(network.aggregator) as aggregators,
    ):
        node = network.nodes["publisher"]
        query = default_query(node.prefiller.shape.num_layers, node.profile)
        query = replace(query, question=words(60, 4))
        running = asyncio.ensure_future(session(node, aggregators, query))
        await begun.wait()
        claimed = node.memory.claimed
        running.cancel()
        await ending.wait()
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()
        assert claimed > node.memory.claimed == 0
