"""The joined nodes, as others are told of them."""

from fedattn.wire.contexts import context_to_wire
from fedattn.wire.protocol import MAX_MESSAGE_SIZE
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.federation import Federation
from services.aggregator.registry import Node, NodeRegistry

_ROOM = MAX_MESSAGE_SIZE - (64 << 10)


def list_nodes(
    registry: NodeRegistry, federation: Federation, request: pb.ListNodesRequest
) -> pb.ListNodesResponse:
    """Joined nodes for the wire, and what their owners should look at; as many as fit."""
    response = pb.ListNodesResponse()
    if len(living := federation.living()) > 1:
        response.aggregators.extend(one.to_wire() for one in living)
    size = 0
    for node in registry.all():
        if request.model_fingerprint in {"", node.fingerprint}:
            info = _describe(registry, node, with_key=request.with_keys)
            size += info.ByteSize()
            if size > _ROOM:
                break
            response.nodes.append(info)
    return response


def _describe(registry: NodeRegistry, node: Node, *, with_key: bool) -> pb.NodeInfo:
    return pb.NodeInfo(
        node_id=node.node_id,
        model_fingerprint=node.fingerprint,
        capabilities=node.join.capabilities,
        active_sessions=node.active_sessions,
        joined_for_s=registry.joined_for_s(node),
        health=node.health,
        context=None if node.context is None else context_to_wire(node.context),
        warnings=_warnings(node),
        key=node.join.key if with_key else None,
        publishes=node.join.publishes,
        aggregator="" if node.home is None else node.home.address,
    )


def _warnings(node: Node) -> list[str]:
    context = node.context
    if context is not None and context.is_given and context.is_empty:
        return [f"{context.describe_empty()}; its log names each file"]
    return []
