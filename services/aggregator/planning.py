"""How a session is laid out, what it will cost, and how it is made to fit a byte budget."""

from collections.abc import Sequence
from dataclasses import replace

from fedattn.core.budget import ByteBudget, fit_budget
from fedattn.core.codecs import CODEC_LADDER, Codec, codec_by_name
from fedattn.core.costs import MemberCost, session_bytes, session_costs
from fedattn.core.errors import ContextTooLongError
from fedattn.core.request import SessionRequest
from fedattn.core.spans import Member, PrefixMode, SessionLayout, build_layout
from fedattn.wire.convert import sizes_from_wire
from services.aggregator.invitations import Acceptance
from services.aggregator.registry import Node


def lay_out(
    request: SessionRequest, publisher: Node, accepted: Sequence[Acceptance]
) -> SessionLayout:
    """The session as asked for, each contributor keeping at most the rows it is willing to send."""
    is_public = request.prefix.mode is PrefixMode.PUBLIC
    layout = build_layout(
        num_layers=publisher.shape.num_layers,
        prefix_len=request.prefix.num_tokens if is_public else 0,
        contributors=[(acceptance.node.node_id, acceptance.span_len) for acceptance in accepted],
        publisher=(publisher.node_id, request.span_len),
        plans=request.plans,
        compression=request.options.compression,
        independent=request.options.independent,
        is_sealed=request.key is not None,
    )
    contributors = (
        _limit(member, acceptance)
        for member, acceptance in zip(layout.contributors, accepted, strict=True)
    )
    return replace(layout, members=(*contributors, layout.publisher))


def _limit(member: Member, acceptance: Acceptance) -> Member:
    """The member sending no more rows than it agreed to."""
    ratio = min(member.compression.keep_ratio, acceptance.max_keep_ratio)
    compression = replace(member.compression, keep_ratio=ratio)
    return replace(member, compression=compression, num_withheld=acceptance.num_withheld)


def fit_layout(
    layout: SessionLayout, nodes: Sequence[Node], budget: ByteBudget | None
) -> SessionLayout:
    """The layout as asked for, or one that keeps the byte budget.

    Args:
        layout: the session as asked for.
        nodes: its members; only codecs that all of them know are chosen.
        budget: what may travel; None for no limit.

    Raises:
        InvalidRequestError: nothing fits the budget.
    """
    if budget is None:
        return layout
    codec = layout.publisher.compression.codec
    codecs = _coarser_codecs(codec, nodes) if budget.may_choose_codec else (codec,)
    return fit_budget(layout, nodes[-1].shape, budget, codecs)


def _coarser_codecs(wanted: Codec, nodes: Sequence[Node]) -> tuple[Codec, ...]:
    """The wanted codec, then coarser ones that every node knows."""
    ladder = [codec_by_name(name) for name in CODEC_LADDER]
    coarser = ladder[ladder.index(wanted) + 1 :] if wanted in ladder else ladder
    known = [codec for codec in coarser if all(node.supports(codec.codec_id) for node in nodes)]
    return (wanted, *known)


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
                f"{max_session_bytes}; use fewer sync layers or shorter contexts"
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
