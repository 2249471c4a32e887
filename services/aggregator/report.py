"""The session report."""

from collections.abc import Sequence

from fedattn.core.contexts import ContextSummary
from fedattn.core.errors import FedAttnError, NothingToGiveError
from fedattn.core.routing import Route
from fedattn.core.session import MemberLedger, MemberState, SessionState
from fedattn.core.spans import Member
from fedattn.wire.convert import compression_to_wire, context_to_wire, role_to_wire
from fedattn.wire.timeline import timeline_to_wire
from fedattn.wire.v1 import session_pb2 as pb
from services.aggregator.registry import Node


def build_report(
    session_id: str,
    state: SessionState,
    planned: Sequence[pb.PlannedCost],
    contexts: Sequence[ContextSummary | None],
    excluded: Sequence[pb.MemberReport],
) -> pb.SessionReport:
    """What every member did and was to do, in token order, then the nodes that took no part."""
    members = [_describe(state, index, cost) for index, cost in enumerate(planned)]
    for member, context in zip(members, contexts, strict=True):
        if context is not None:
            member.context.CopyFrom(context_to_wire(context))
    return pb.SessionReport(session_id=session_id, members=[*members, *excluded])


def exclude(node: Node, reason: FedAttnError | str) -> pb.MemberReport:
    """A node that was asked but takes no part, or has nothing to give."""
    is_empty = isinstance(reason, NothingToGiveError)
    return pb.MemberReport(
        node_id=node.node_id,
        role=pb.ROLE_CONTRIBUTOR,
        state=pb.OUTCOME_EMPTY if is_empty else pb.OUTCOME_EXCLUDED,
        detail=str(reason),
        context=None if node.context is None else context_to_wire(node.context),
    )


def _describe(state: SessionState, index: int, planned: pb.PlannedCost) -> pb.MemberReport:
    member, ledger = state.member(index), state.ledgers[index]
    layers = sorted({*ledger.bytes_up, *ledger.bytes_down})
    return pb.MemberReport(
        node_id=member.node_id,
        role=role_to_wire(member.role),
        state=_state(ledger),
        span_len=len(member.span),
        layers=[
            pb.LayerBytes(
                layer=layer,
                up=ledger.bytes_up.get(layer, 0),
                down=ledger.bytes_down.get(layer, 0),
            )
            for layer in layers
        ],
        wait_s=ledger.wait_s,
        compute_s=ledger.compute_s,
        missing_from_layer=ledger.missing_from or 0,
        detail=ledger.reason or ("" if ledger.is_over else "it had not finished"),
        planned=planned,
        compression=compression_to_wire(member.compression),
        sync_layers=member.plan.layers,
        row_source=_row_source(member, state.routes[index]),
        timeline=timeline_to_wire(ledger.timeline),
    )


def _row_source(member: Member, route: Route) -> "pb.RowSource.ValueType":
    if member.is_cached_by_publisher and not route.uploads:
        return pb.ROW_SOURCE_PUBLISHER_CACHE
    return pb.ROW_SOURCE_CONTRIBUTOR_CACHE if member.is_cached_by_owner else pb.ROW_SOURCE_COMPUTED


def _state(ledger: MemberLedger) -> "pb.Outcome.ValueType":
    if ledger.late_from is not None:
        return pb.OUTCOME_LATE
    if ledger.state is MemberState.COMPLETE or not ledger.awaited:
        return pb.OUTCOME_COMPLETE
    return pb.OUTCOME_LOST
