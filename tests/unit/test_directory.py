"""What a gateway knows of the nodes: one question to the aggregator for all who wait."""

import asyncio
from typing import cast

import pytest

from fedattn.core.errors import AggregatorUnavailableError
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.v1 import aggregator_pb2 as pb
from gateway.directory import Directory
from tests.harness.homes import OneHome


class Aggregator:
    """Cannot be reached; takes a turn of the loop to say so."""

    def __init__(self) -> None:
        self.num_asked = 0

    async def reach(self, within_s: float) -> None:
        await asyncio.sleep(0)

    async def list_nodes(
        self, request: pb.ListNodesRequest, within_s: float
    ) -> pb.ListNodesResponse:
        self.num_asked += 1
        raise AggregatorUnavailableError("lost")


async def test_those_who_wait_for_an_unreachable_aggregator_fail_with_the_first() -> None:
    aggregator = Aggregator()
    directory = Directory(cast("Aggregators", OneHome(aggregator)))
    outcomes = await asyncio.gather(*(directory.look() for _ in range(20)), return_exceptions=True)
    assert all(isinstance(one, AggregatorUnavailableError) for one in outcomes)
    assert aggregator.num_asked == 1
    with pytest.raises(AggregatorUnavailableError):
        await directory.look()
    assert aggregator.num_asked == 2
