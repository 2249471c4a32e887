"""Whether the contexts of the joined nodes fit a model's window together, and who is told."""

from collections.abc import Iterable

from fedattn.core.contexts import WindowUse
from fedattn.wire.contexts import context_to_wire, window_use_to_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.registry import Node, NodeRegistry


def window_uses(nodes: Iterable[Node]) -> dict[str, WindowUse]:
    """By fingerprint: how full a query over all nodes of that model would make its window."""
    groups: dict[str, list[Node]] = {}
    for node in nodes:
        groups.setdefault(node.fingerprint, []).append(node)
    return {fingerprint: _window_use(group) for fingerprint, group in groups.items()}


def _window_use(nodes: list[Node]) -> WindowUse:
    offered = [node.join.capabilities for node in nodes]
    own = sum(node.context.num_tokens for node in nodes if node.context is not None)
    return WindowUse(
        num_nodes=len(nodes),
        num_tokens=own + max(capabilities.prefix_tokens for capabilities in offered),
        window=min(capabilities.max_positions for capabilities in offered),
    )


def tell_windows(registry: NodeRegistry) -> None:
    """Tell nodes, for their logs, when it turned true or false that all do not fit together.

    A node alone knows that by itself.
    """
    nodes = registry.all()
    uses = window_uses(nodes)
    for node in nodes:
        use = uses[node.fingerprint]
        node.has_new_context = False
        is_tight = use.is_tight and use.num_nodes > 1
        if node.is_window_tight != is_tight:
            node.is_window_tight = is_tight
            node.send(pb.ControlResponse(window=window_use_to_wire(use)))


def list_nodes(registry: NodeRegistry) -> pb.ListNodesResponse:
    """All joined nodes for the wire, and what their owners should look at."""
    nodes = registry.all()
    uses = window_uses(nodes)
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
                warnings=_warnings(node, uses[node.fingerprint]),
            )
            for node in nodes
        ]
    )


def _warnings(node: Node, use: WindowUse) -> list[str]:
    context = node.context
    if context is None:
        return []
    warnings = [use.describe()] if use.is_tight and not context.is_empty else []
    if context.is_given and context.is_empty:
        warnings.append(f"{context.describe_empty()}; its log names each file")
    return warnings
