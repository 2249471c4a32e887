"""The session report."""

from fedattn.core.costs import MemberCost
from fedattn.core.errors import NothingToGiveError, ParticipantDepartedError
from fedattn.core.routing import Route
from fedattn.core.session import MemberLedger, MemberState, SessionState
from fedattn.core.spans import Member
from fedattn.wire.contexts import context_to_wire
from fedattn.wire.convert import compression_to_wire
from fedattn.wire.enums import ROLES
from fedattn.wire.protocol import MAX_TEXT_LENGTH
from fedattn.wire.timeline import timeline_to_wire
from fedattn.wire.v1 import session_pb2 as pb
from services.aggregator.choosing import ExcludedNode
from services.aggregator.opened import OpenedMember, OpenedSession


def build_report(opened: OpenedSession, state: SessionState) -> pb.SessionReport:
    """What every member did and was to do, in token order, then the nodes that took no part."""
    members = [_describe(state, index, member) for index, member in enumerate(opened.members)]
    excluded = map(describe_excluded, opened.excluded)
    return pb.SessionReport(session_id=opened.terms.session_id, members=[*members, *excluded])


def describe_excluded(node: ExcludedNode) -> pb.MemberReport:
    """A node that takes no part, has nothing to give, or has left."""
    match node.reason:
        case NothingToGiveError():
            state = pb.OUTCOME_EMPTY
        case ParticipantDepartedError():
            state = pb.OUTCOME_DEPARTED
        case _:
            state = pb.OUTCOME_EXCLUDED
    return pb.MemberReport(
        node_id=node.node_id,
        role=pb.ROLE_CONTRIBUTOR,
        state=state,
        detail=str(node.reason),
        context=None if node.context is None else context_to_wire(node.context),
    )


def _describe(state: SessionState, index: int, opened: OpenedMember) -> pb.MemberReport:
    member, ledger = state.member(index), state.ledgers[index]
    layers = sorted({*ledger.bytes_up, *ledger.bytes_down})
    return pb.MemberReport(
        node_id=member.node_id,
        role=ROLES.to_wire(member.role),
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
        missing_from_layer=_missing_from(ledger) or 0,
        detail=_detail(state, index)[:MAX_TEXT_LENGTH],
        planned=_cost_to_wire(opened.planned),
        compression=compression_to_wire(member.compression),
        sync_layers=member.answers.layers if member.is_asked else member.plan.layers,
        row_source=_row_source(member, state.routes[index]),
        timeline=timeline_to_wire(ledger.timeline),
        context=None if opened.context is None else context_to_wire(opened.context),
        num_passages=opened.num_passages,
        text_len=opened.text_len,
        round_trips=ledger.num_pieces,
    )


def _missing_from(ledger: MemberLedger) -> int | None:
    """First layer that others were without; one that sends still, at the report, is late for it."""
    is_lost = _state(ledger) == pb.OUTCOME_LOST
    return ledger.missing_from or (min(ledger.awaited, default=None) if is_lost else None)


def _detail(state: SessionState, index: int) -> str:
    is_over = state.ledgers[index].is_over
    return state.explain(index) or ("" if is_over else "it had not finished")


def _row_source(member: Member, route: Route) -> "pb.RowSource.ValueType":
    if member.is_asked:
        return pb.ROW_SOURCE_ASKED
    if member.is_cached_by_publisher and not route.uploads:
        return pb.ROW_SOURCE_PUBLISHER_CACHE
    return pb.ROW_SOURCE_CONTRIBUTOR_CACHE if member.is_cached_by_owner else pb.ROW_SOURCE_COMPUTED


def _state(ledger: MemberLedger) -> "pb.Outcome.ValueType":
    if ledger.late_from is not None:
        return pb.OUTCOME_LATE
    if ledger.is_asked and ledger.state is MemberState.LOST:
        return pb.OUTCOME_LOST
    if ledger.state is MemberState.COMPLETE or not ledger.awaited:
        return pb.OUTCOME_COMPLETE
    return pb.OUTCOME_LOST


def _cost_to_wire(cost: MemberCost) -> pb.PlannedCost:
    return pb.PlannedCost(
        bytes_up=cost.traffic.total_up,
        bytes_down=cost.traffic.total_down,
        flops_prefill=cost.flops_prefill,
        flops_decode=cost.flops_decode,
        peak_memory_bytes=cost.peak_memory_bytes,
    )
