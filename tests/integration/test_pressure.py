"""Nodes under pressure, in sessions over real sockets."""

from collections.abc import Sequence
from dataclasses import replace

from fedattn.wire.convert import wish_to_wire
from fedattn.wire.stubs import AggregatorStub
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.participant.admission import Admission
from services.participant.machine import Readings
from services.participant.pressure import PressureGauge, PressureLimits
from tests.harness.channels import direct_channel
from tests.harness.networks import LOSSLESS, Network, ask, failure

LIMITS = PressureLimits(high_c=75, critical_c=85, keep_ratio=0.5)


def heat(network: Network, node_id: str, temperature_c: float) -> None:
    readings = Readings(memory_free=0.5, temperature_c=temperature_c)
    node = network.nodes[node_id]
    node.pressure = PressureGauge(LIMITS, lambda: readings)
    node.admission = Admission(node_id, node.max_sessions, node.pressure)


async def members(network: Network, **changes: object) -> dict[str, session_pb2.MemberReport]:
    events = await ask(network, **changes)
    return {member.node_id: member for member in events[-1].result.report.members}


async def test_hot_contributor_sends_fewer_rows_and_the_report_says_so(network: Network) -> None:
    heat(network, "node-1", 78)
    report = await members(network)
    assert report["node-0"].compression.keep_ratio == 1.0
    assert report["node-1"].compression.keep_ratio == 0.5
    assert report["node-1"].state == session_pb2.OUTCOME_COMPLETE
    assert report["node-1"].layers[0].up < report["node-0"].layers[0].up


async def test_a_query_that_keeps_less_anyway_is_not_changed(network: Network) -> None:
    heat(network, "node-1", 78)
    wish = replace(LOSSLESS, keep_ratio=0.3)
    report = await members(network, compression=wish_to_wire(wish))
    assert report["node-1"].compression.keep_ratio == 0.3


async def test_contributor_under_critical_pressure_stands_aside(network: Network) -> None:
    heat(network, "node-0", 90)
    report = await members(network)
    assert report["node-0"].state == session_pb2.OUTCOME_EXCLUDED
    assert "critical pressure (memory_free 50%, temperature 90 C)" in report["node-0"].detail
    assert report["node-1"].state == session_pb2.OUTCOME_COMPLETE


async def test_publisher_under_critical_pressure_refuses(network: Network) -> None:
    heat(network, "publisher", 90)
    error = await failure(network)
    assert error.code == "node_busy"
    assert "temperature 90 C" in str(error)


async def listed(network: Network) -> Sequence[pb.NodeInfo]:
    async with direct_channel(network.aggregator) as channel:
        return (await AggregatorStub(channel).ListNodes(pb.ListNodesRequest())).nodes


async def test_list_of_participants_tells_pressure(network: Network) -> None:
    heat(network, "node-1", 78)
    while True:  # until its next heartbeat
        health = {node.node_id: node.health for node in await listed(network)}["node-1"]
        if health.pressure == pb.PRESSURE_HIGH:
            break
    assert (health.memory_free, health.temperature_c) == (0.5, 78)
