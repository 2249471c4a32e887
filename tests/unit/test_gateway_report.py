"""A word of a node that the gateway does not know is a fault of the versions, not of the client."""

import pytest

from fedattn.core.errors import ProtocolMismatchError
from gateway.report import event_from_wire, participant_from_wire
from tests.harness.gateway import node_info, opened

UNKNOWN = 99


def test_unknown_role_of_a_member() -> None:
    event = opened()
    event.opened.terms.members[0].role = UNKNOWN  # type: ignore[assignment]
    with pytest.raises(ProtocolMismatchError, match="the publisher: role 99 is not known here"):
        event_from_wire(event)


def test_unknown_pressure_of_a_node() -> None:
    node = node_info("node-a")
    node.health.pressure = UNKNOWN  # type: ignore[assignment]
    with pytest.raises(ProtocolMismatchError, match="node 'node-a': pressure 99 is not known here"):
        participant_from_wire(node, can_publish=False)


def test_unknown_reason_of_a_skipped_file() -> None:
    node = node_info("node-a")
    node.context.skipped.add(reason=UNKNOWN, count=1)
    with pytest.raises(ProtocolMismatchError, match="node 'node-a': "):
        participant_from_wire(node, can_publish=False)
