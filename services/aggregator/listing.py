"""The joined nodes and those that left, as others are told of them."""

from collections.abc import Iterator

from fedattn.core.report import NodeState
from fedattn.wire.contexts import context_to_wire
from fedattn.wire.enums import NODE_STATES
from fedattn.wire.protocol import MAX_MESSAGE_SIZE, MAX_REASON_LENGTH
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.federation import Federation
from services.aggregator.registry import Node, NodeRegistry
from services.aggregator.standing import Record, Standing

_ROOM = MAX_MESSAGE_SIZE - (64 << 10)


def list_nodes(
    registry: NodeRegistry,
    standing: Standing,
    federation: Federation,
    request: pb.ListNodesRequest,
) -> pb.ListNodesResponse:
    """Joined nodes for the wire, and what their owners should look at; as many as fit."""
    response = pb.ListNodesResponse()
    if len(living := federation.living()) > 1:
        response.aggregators.extend(one.to_wire() for one in living)
    size = 0
    for node in registry.all():
        if request.model_fingerprint in {"", node.fingerprint}:
            info = _describe(node, standing.of(node.node_id), with_key=request.with_keys)
            info.joined_for_s = registry.joined_for_s(node)
            size += info.ByteSize()
            if size > _ROOM:
                break
            response.nodes.append(info)
    if not request.node_id:
        response.departed.extend(_departed(registry, _ROOM - size))
    return response


def _departed(registry: NodeRegistry, room: int) -> Iterator[pb.DepartedNode]:
    """Nodes that left of late, the latest first; as many as fit."""
    departures = registry.departures
    for departure in departures.all():
        node, left_for_s = departure.node, departures.left_for_s(departure)
        told = pb.DepartedNode(
            node=_describe(node, Record(NodeState.GOOD), with_key=False),
            left_for_s=left_for_s,
            reason=departure.reason[:MAX_REASON_LENGTH],
        )
        told.node.joined_for_s = registry.joined_for_s(node) - left_for_s
        room -= told.ByteSize()
        if room < 0:
            return
        yield told


def _describe(node: Node, record: Record, *, with_key: bool) -> pb.NodeInfo:
    return pb.NodeInfo(
        node_id=node.node_id,
        model_fingerprint=node.fingerprint,
        capabilities=node.join.capabilities,
        active_sessions=node.active_sessions,
        health=node.health,
        context=None if node.context is None else context_to_wire(node.context),
        warnings=_warnings(node),
        key=node.join.key if with_key else None,
        publishes=node.join.publishes,
        aggregator="" if node.home is None else node.home.address,
        state=NODE_STATES.to_wire(record.state),
        state_reason=record.reason,
        rests_for_s=record.rests_for_s,
    )


def _warnings(node: Node) -> list[str]:
    context = node.context
    if context is not None and context.is_given and context.is_empty:
        return [f"{context.describe_empty()}; its log names each file"]
    return []
