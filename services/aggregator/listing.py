"""The joined nodes, as others are told of them."""

from fedattn.wire.contexts import context_to_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.registry import Node, NodeRegistry


def list_nodes(registry: NodeRegistry, *, with_keys: bool = False) -> pb.ListNodesResponse:
    """All joined nodes for the wire, and what their owners should look at."""
    return pb.ListNodesResponse(
        nodes=[
            pb.NodeInfo(
                node_id=node.node_id,
                model_fingerprint=node.fingerprint,
                capabilities=node.join.capabilities,
                active_sessions=node.active_sessions,
                joined_for_s=registry.joined_for_s(node),
                health=node.health,
                context=None if node.context is None else context_to_wire(node.context),
                warnings=_warnings(node),
                key=node.join.key if with_keys else None,
            )
            for node in registry.all()
        ]
    )


def _warnings(node: Node) -> list[str]:
    context = node.context
    if context is not None and context.is_given and context.is_empty:
        return [f"{context.describe_empty()}; its log names each file"]
    return []
