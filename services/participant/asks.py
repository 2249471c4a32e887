"""What a session can take of a node, in numbers that its owner's policy goes by."""

import math

from fedattn.core.consent import Ask
from fedattn.core.request import SessionRequest
from fedattn.core.spans import Member, Role, Span
from fedattn.core.transfer import max_upload_size
from fedattn.core.types import KvShape


def sync_layers(request: SessionRequest) -> tuple[int, ...]:
    """Blocks at which a contributor may have to send rows, at most."""
    return tuple(sorted({*request.plans.publisher.layers, *request.plans.contributors.layers}))


def members_of(
    request: SessionRequest,
    span_len: int,
    num_withheld: int,
    *,
    can_score: bool,
    max_keep_ratio: float,
) -> list[Member]:
    """This node as it may take part: on each rung that the request allows."""
    return [
        Member(
            node_id="this",
            role=Role.CONTRIBUTOR,
            span=Span(0, span_len),
            plan=request.plans.contributors,
            compression=rung.of_member(can_score=can_score, max_keep_ratio=max_keep_ratio),
            num_withheld=num_withheld,
            is_sealed=request.key is not None,
        )
        for rung in request.rungs
    ]


def describe_rows(
    session_id: str, request: SessionRequest, members: list[Member], shape: KvShape
) -> Ask:
    """The most that a request can take of a node."""
    layers = sync_layers(request)
    num_rows = max(member.mean_rows(layers, shape.num_kv_heads) for member in members)
    return Ask(
        publisher=request.node_id,
        subject=request.options.subject,
        purpose=request.options.purpose,
        layers=layers,
        num_rows=math.ceil(num_rows),
        keep_ratio=share_of(num_rows, len(members[0].span)),
        num_bytes=max(
            sum(max_upload_size(member, shape, layer) for layer in layers) for member in members
        ),
        session_id=session_id,
        share=request.options.share.value,
    )


def describe_answers(session_id: str, request: SessionRequest, part_size: int) -> Ask:
    """What is expected to be asked of a node whose rows stay."""
    layers = request.plans.asked.layers
    num_tokens = request.span_len + request.max_new_tokens
    return Ask(
        publisher=request.node_id,
        subject=request.options.subject,
        purpose=request.options.purpose,
        layers=layers,
        num_rows=0,
        keep_ratio=0.0,
        num_bytes=len(layers) * num_tokens * part_size,
        session_id=session_id,
        share=request.options.share.value,
        is_asked=True,
    )


def share_of(num_rows: float, span_len: int) -> float:
    """Share of a span's rows, as the record has it."""
    return round(num_rows / max(1, span_len), 3)
