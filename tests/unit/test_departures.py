"""What the aggregator remembers of nodes that left."""

import math

import pytest

from fedattn.core.errors import ParticipantDepartedError
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.departures import REMEMBERED_S
from services.aggregator.federation import Alone
from services.aggregator.listing import list_nodes
from services.aggregator.registry import Node, NodeRegistry
from services.aggregator.standing import Standing
from tests.harness.raw import join_message

AS_GATEWAY = pb.ListNodesRequest()
NOBODY_LATE = Standing(10, first_pause_s=30.0, max_pause_s=30.0)


class Network:
    """A registry whose clock the test turns."""

    def __init__(self, max_nodes: int = 10, silent_after_s: float = math.inf) -> None:
        self.now = 100.0
        self.nodes = NodeRegistry(max_nodes, silent_after_s, lambda: self.now)

    def join(self, node_id: str) -> Node:
        return self.nodes.join(join_message(node_id))

    def departed(self) -> list[str]:
        return [one.node.node_id for one in self.nodes.departures.all()]


def test_a_departure_is_told_with_when_and_why_until_the_node_is_back() -> None:
    network = Network()
    node = network.join("a")
    network.now += 50
    network.nodes.leave(node, "it said goodbye")
    network.now += 240
    (told,) = list_nodes(network.nodes, NOBODY_LATE, Alone(), AS_GATEWAY).departed
    assert (told.node.node_id, told.reason) == ("a", "it said goodbye")
    assert (told.left_for_s, told.node.joined_for_s) == (240, 50)
    error = network.nodes.departures.error_of("a")
    assert isinstance(error, ParticipantDepartedError)
    assert str(error) == "a: left 4 min ago; it said goodbye"
    network.join("a")
    assert network.departed() == []
    assert network.nodes.departures.error_of("a") is None


def test_departures_are_forgotten_after_an_hour_and_beyond_so_many() -> None:
    network = Network(max_nodes=2)
    for name in ("a", "b", "c"):
        network.nodes.leave(network.join(name))
        network.now += 1
    assert network.departed() == ["c", "b"]
    network.now += REMEMBERED_S - 2
    assert network.departed() == ["c"]
    network.now += 2
    assert network.departed() == []


def test_of_a_node_that_left_no_key_and_no_command_is_kept() -> None:
    network = Network()
    message = join_message("a")
    message.key.payload = bytes(91)
    node = network.nodes.join(message)
    node.send(pb.ControlResponse(cancel=pb.SessionCancel(session_id="s", reason="r" * 1000)))
    network.nodes.leave(node)
    (departure,) = network.nodes.departures.all()
    assert not departure.node.join.HasField("key")
    assert departure.node.outbox is not node.outbox
    assert node.join.HasField("key")  # sessions that run still need it
    assert departure.node.join.ByteSize() < 2048


def test_nodes_are_told_of_nobody_who_left() -> None:
    network = Network()
    network.nodes.leave(network.join("a"))
    assert not list_nodes(
        network.nodes, NOBODY_LATE, Alone(), pb.ListNodesRequest(node_id="b")
    ).departed


@pytest.mark.parametrize(
    ("silent_s", "reason"),
    [
        (4.9, "its connection broke"),
        (12.0, "it fell silent: no heartbeat for 12 s, and its connection timed out"),
    ],
)
def test_a_connection_that_ends_after_silence_was_a_frozen_nodes(
    silent_s: float, reason: str
) -> None:
    network = Network(silent_after_s=7.5)
    node = network.join("a")
    network.now += 60
    network.nodes.hear(node)
    network.now += silent_s
    assert network.nodes.why_broken(node) == reason
