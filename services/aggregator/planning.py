"""What a session will cost, and how it is made to fit a byte budget."""

from fedattn.core.budget import ByteBudget, fit_budget
from fedattn.core.codecs import CODEC_LADDER, Codec, codec_by_name
from fedattn.core.costs import session_bytes, session_costs
from fedattn.core.spans import SessionLayout
from fedattn.wire.convert import require_range, sizes_from_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.aggregator.registry import Node

_MAX_BYTES = 1 << 62


def fit_layout(
    layout: SessionLayout, nodes: list[Node], request: pb.OpenSessionRequest
) -> SessionLayout:
    """The layout as wished, or one that keeps the request's byte budget.

    Args:
        layout: the session as wished.
        nodes: its members; only codecs that all of them know are chosen.
        request: with the budget.

    Raises:
        InvalidRequestError: the budget is out of range, or nothing fits it.
    """
    if not request.HasField("budget"):
        return layout
    wished = layout.publisher.compression.codec
    budget = request.budget
    require_range("kv_bytes of the budget", budget.kv_bytes, 0, _MAX_BYTES)
    require_range("link_bytes of the budget", budget.link_bytes, 0, _MAX_BYTES)
    codecs = _coarser_codecs(wished, nodes) if budget.may_choose_codec else (wished,)
    limits = ByteBudget(kv_bytes=budget.kv_bytes or None, link_bytes=budget.link_bytes or None)
    return fit_budget(layout, nodes[-1].shape, limits, codecs)


def _coarser_codecs(wished: Codec, nodes: list[Node]) -> tuple[Codec, ...]:
    """The wished codec, then coarser ones that every node knows."""
    ladder = [codec_by_name(name) for name in CODEC_LADDER]
    coarser = ladder[ladder.index(wished) + 1 :] if wished in ladder else ladder
    known = [codec for codec in coarser if all(node.supports(codec.codec_id) for node in nodes)]
    return (wished, *known)


def plan_costs(
    layout: SessionLayout, publisher: Node, num_new_tokens: int
) -> tuple[session_pb2.PlannedCost, ...]:
    """What every member is foretold; FLOPs and memory only if the model's sizes are known."""
    if not publisher.join.capabilities.HasField("sizes"):
        return tuple(
            session_pb2.PlannedCost(bytes_up=member.total_up, bytes_down=member.total_down)
            for member in session_bytes(layout, publisher.shape)
        )
    sizes = sizes_from_wire(publisher.join.capabilities.sizes, publisher.shape)
    costs = session_costs(layout, sizes, num_new_tokens=num_new_tokens)
    return tuple(
        session_pb2.PlannedCost(
            bytes_up=cost.traffic.total_up,
            bytes_down=cost.traffic.total_down,
            flops_prefill=cost.flops_prefill,
            flops_decode=cost.flops_decode,
            peak_memory_bytes=cost.peak_memory_bytes,
        )
        for cost in costs
    )
