"""How a session is laid out, what it will cost, and how it is made to fit a byte budget."""

from collections.abc import Sequence
from dataclasses import replace

from fedattn.core.budget import Rung, fit_budget
from fedattn.core.costs import MemberCost, session_bytes, session_costs
from fedattn.core.errors import ContextTooLongError
from fedattn.core.request import SessionRequest
from fedattn.core.spans import PrefixMode, SessionLayout, build_layout
from fedattn.wire.convert import sizes_from_wire
from services.aggregator.invitations import Acceptance
from services.aggregator.registry import Node


def lay_out(
    request: SessionRequest, publisher: Node, accepted: Sequence[Acceptance]
) -> SessionLayout:
    """The session as asked for, each contributor sending at most the rows it is willing to."""
    is_public = request.prefix.mode is PrefixMode.PUBLIC
    layout = build_layout(
        num_layers=publisher.shape.num_layers,
        prefix_len=request.prefix.num_tokens if is_public else 0,
        contributors=[(acceptance.node.node_id, acceptance.span_len) for acceptance in accepted],
        publisher=(publisher.node_id, request.span_len),
        plans=request.plans,
        independent=request.options.independent,
        is_sealed=request.key is not None,
        asked=[one.node.node_id for one in accepted if one.is_asked],
    )
    contributors = tuple(
        replace(member, num_withheld=acceptance.num_withheld)
        for member, acceptance in zip(layout.contributors, accepted, strict=True)
    )
    layout = replace(layout, members=(*contributors, layout.publisher))
    return _on_rung(layout, request.rungs[0], accepted)


def fit_layout(
    layout: SessionLayout,
    request: SessionRequest,
    publisher: Node,
    accepted: Sequence[Acceptance],
) -> SessionLayout:
    """The layout as asked for, or on the first rung that keeps the byte budget.

    Args:
        layout: from `lay_out`.
        request: of the publisher.
        publisher: its node.
        accepted: the contributors; only codecs that all members know are chosen.

    Raises:
        InvalidRequestError: nothing fits the budget.
    """
    budget = request.options.budget
    if budget is None:
        return layout
    nodes = [publisher, *(acceptance.node for acceptance in accepted)]
    known = (
        rung
        for rung in request.rungs[1:]
        if all(node.supports(rung.compression.codec.codec_id) for node in nodes)
    )
    layouts = (layout, *(_on_rung(layout, rung, accepted) for rung in known))
    return fit_budget(layouts, publisher.shape, budget)


def _on_rung(layout: SessionLayout, rung: Rung, accepted: Sequence[Acceptance]) -> SessionLayout:
    contributors = tuple(
        replace(
            member,
            compression=rung.of_member(
                can_score=acceptance.can_score, max_keep_ratio=acceptance.max_keep_ratio
            ),
        )
        for member, acceptance in zip(layout.contributors, accepted, strict=True)
    )
    publisher = replace(layout.publisher, compression=rung.compression)
    return replace(layout, members=(*contributors, publisher))


def check_window(layout: SessionLayout, publisher: Node, request: SessionRequest) -> None:
    """The joined sequence must fit the window.

    Raises:
        ContextTooLongError: names the sizes.
    """
    limit = publisher.join.capabilities.max_positions
    if layout.num_tokens + request.max_new_tokens > limit:
        parts = ", ".join(f"{m.node_id} {len(m.span)}" for m in layout.members)
        raise ContextTooLongError(
            f"the joined prompt has {layout.num_tokens} tokens ({parts}, prefix "
            f"{layout.prefix_len}) and {request.max_new_tokens} may be decoded, but the "
            f"model's window is {limit}; shorten a context or ask fewer contributors"
        )


def check_bytes(layout: SessionLayout, publisher: Node, max_session_bytes: int) -> None:
    """Each member's rows must fit its memory.

    Raises:
        ContextTooLongError: names the sizes.
    """
    for member in session_bytes(layout, publisher.shape):
        if member.total_down > max_session_bytes:
            raise ContextTooLongError(
                f"{member.node_id} would receive {member.total_down} bytes of KV, the limit is "
                f"{max_session_bytes}; keep fewer rows, or use shorter contexts"
            )


def plan_costs(
    layout: SessionLayout, publisher: Node, num_new_tokens: int
) -> tuple[MemberCost, ...]:
    """What every member's part is foretold; FLOPs and memory only if the sizes are known."""
    if not publisher.join.capabilities.HasField("sizes"):
        return tuple(
            MemberCost(traffic=traffic, flops_prefill=0, flops_decode=0, peak_memory_bytes=0)
            for traffic in session_bytes(layout, publisher.shape)
        )
    sizes = sizes_from_wire(publisher.join.capabilities.sizes, publisher.shape)
    return session_costs(layout, sizes, num_new_tokens=num_new_tokens)
