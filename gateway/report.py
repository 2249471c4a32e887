"""From wire messages to what the gateway answers with."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fedattn.core.errors import InvalidInputError, ProtocolMismatchError
from fedattn.core.report import NodeState, Outcome
from fedattn.rest.answers import AnswerSource, QueryAnswer, WarmAnswer
from fedattn.rest.events import (
    LayerEvent,
    QueryEvent,
    RowArrival,
    SessionEvent,
    SessionMember,
    TokenEvent,
)
from fedattn.rest.participants import NodeHealth, ParticipantInfo
from fedattn.rest.reports import (
    AskedReport,
    LayerTraffic,
    ParticipantReport,
    PlannedCost,
    RowsReport,
    TimelineSlice,
    Totals,
)
from fedattn.wire.contexts import context_from_wire
from fedattn.wire.convert import compression_from_wire
from fedattn.wire.enums import (
    ACTIVITIES,
    FINISH_REASONS,
    NODE_STATES,
    OUTCOMES,
    PRESSURES,
    ROLES,
    ROW_SOURCES,
)
from fedattn.wire.v1 import aggregator_pb2, participant_pb2, session_pb2


def event_from_wire(event: participant_pb2.QueryEvent) -> QueryEvent:
    """Whatever happened.

    Raises:
        ProtocolMismatchError: the publisher says something not known here.
    """
    match event.WhichOneof("body"):
        case "opened":
            return session_from_wire(event.opened)
        case "layer":
            progress = event.layer
            return LayerEvent(
                layer=progress.layer,
                num_rows=progress.num_rows,
                wait_s=progress.wait_s,
                arrivals=[_arrival(arrival) for arrival in progress.arrivals],
            )
        case "token":
            return TokenEvent(text=event.token.text)
        case "result":
            return answer_from_wire(event.result)
    raise ProtocolMismatchError(
        "the publisher sent an event that is not known here; upgrade the gateway"
    )


def _arrival(arrival: participant_pb2.Arrival) -> RowArrival:
    return RowArrival(
        node_id=arrival.node_id,
        num_rows=arrival.num_rows,
        num_bytes=arrival.num_bytes,
        wait_s=arrival.wait_s,
    )


def answer_from_wire(result: participant_pb2.QueryResult) -> QueryAnswer:
    """The final document.

    Raises:
        ProtocolMismatchError: the publisher says something not known here.
    """
    participants = [_report_from_wire(member) for member in result.report.members]
    with _known_words("the publisher"):
        finish_reason = FINISH_REASONS.from_wire(result.finish_reason)
    return QueryAnswer(
        session_id=result.report.session_id,
        answer=result.text,
        finish_reason=finish_reason,
        prompt_tokens=result.prompt_tokens,
        num_tokens=result.num_tokens,
        support=result.support if result.HasField("support") else None,
        is_supported=result.is_supported,
        sources=[
            AnswerSource(node_id=source.node_id, passage=source.number, share=source.share)
            for source in result.sources
        ],
        participants=participants,
        totals=Totals(
            time_to_first_token_s=result.time_to_first_token_s,
            tokens_per_s=_tokens_per_s(result),
            kv_bytes=_kv_bytes(participants, "bytes_up"),
            asked_bytes=sum(one.bytes_up for one in participants if one.round_trips),
            planned_kv_bytes=sum(part.planned.bytes_up for part in participants if part.planned),
            kv_bytes_down=_kv_bytes(participants, "bytes_down"),
            budget_steps=result.budget_steps,
        ),
        asked=_asked(result.asked) if result.HasField("asked") else None,
    )


def _asked(decoding: participant_pb2.AskedDecoding) -> AskedReport:
    return AskedReport(
        passes=decoding.passes,
        drafted=decoding.drafted,
        accepted=decoding.accepted,
        draft_s=decoding.draft_s,
        pass_s=decoding.pass_s,
    )


def _kv_bytes(participants: list[ParticipantReport], way: str) -> int:
    """Of frames; queries and answers to them are none."""
    return sum(getattr(one, way) for one in participants if not one.round_trips)


def warm_from_wire(response: participant_pb2.WarmResponse) -> WarmAnswer:
    """What is held now.

    Raises:
        ProtocolMismatchError: the publisher says something not known here.
    """
    participants = [_report_from_wire(member) for member in response.report.members]
    return WarmAnswer(
        session_id=response.report.session_id,
        kv_bytes=sum(participant.bytes_up for participant in participants),
        participants=participants,
    )


def _tokens_per_s(result: participant_pb2.QueryResult) -> float | None:
    if result.num_tokens < 2 or result.decode_s <= 0:
        return None
    return (result.num_tokens - 1) / result.decode_s


def session_from_wire(opened: participant_pb2.SessionOpened) -> SessionEvent:
    """Who takes part, where.

    Raises:
        ProtocolMismatchError: the publisher says something not known here.
    """
    with _known_words("the publisher"):
        members = [
            SessionMember(
                node_id=member.node_id,
                role=ROLES.from_wire(member.role),
                span_start=member.span_start,
                span_stop=member.span_stop,
                sync_layers=list(member.sync_layers),
            )
            for member in opened.terms.members
        ]
    return SessionEvent(
        session_id=opened.terms.session_id,
        prefix_len=opened.terms.prefix_len,
        num_layers=opened.terms.shape.num_layers,
        row_bytes=row_bytes_of(opened.terms),
        members=members,
        excluded=[_report_from_wire(member) for member in opened.excluded],
        spends_approval=opened.spends_approval,
    )


def row_bytes_of(terms: session_pb2.SessionTerms) -> int:
    """Bytes of one token's keys and values at one block, at 2 bytes a number."""
    return 2 * 2 * terms.shape.num_kv_heads * terms.shape.head_dim


def participant_from_wire(node: aggregator_pb2.NodeInfo, *, can_publish: bool) -> ParticipantInfo:
    """A node that is joined now.

    Raises:
        ProtocolMismatchError: the node says something not known here.
    """
    with _known_words(f"node {node.node_id!r}"):
        return ParticipantInfo(
            node_id=node.node_id,
            model_name=node.capabilities.model_name,
            model_fingerprint=node.model_fingerprint,
            num_layers=node.capabilities.shape.num_layers,
            max_positions=node.capabilities.max_positions,
            active_sessions=node.active_sessions,
            joined_for_s=node.joined_for_s,
            can_publish=can_publish,
            health=_health_from_wire(node.health) if node.HasField("health") else None,
            warnings=list(node.warnings),
            state=NODE_STATES.from_wire(node.state),
            state_reason=node.state_reason,
            rests_for_s=node.rests_for_s,
            **_context_counts(node),
        )


def departed_from_wire(departed: aggregator_pb2.DepartedNode) -> ParticipantInfo:
    """A node that left within the last hour; raises as `participant_from_wire`."""
    was = {
        "state": NodeState.DEPARTED,
        "state_reason": departed.reason,
        "left_for_s": departed.left_for_s,
        "active_sessions": 0,
        "health": None,
    }
    return participant_from_wire(departed.node, can_publish=False).model_copy(update=was)


def _health_from_wire(health: aggregator_pb2.Health) -> NodeHealth:
    return NodeHealth(
        pressure=PRESSURES.from_wire(health.pressure),
        memory_free=health.memory_free,
        temperature_c=health.temperature_c or None,
    )


def _report_from_wire(member: session_pb2.MemberReport) -> ParticipantReport:
    with _known_words(f"the report of node {member.node_id!r}"):
        state = OUTCOMES.from_wire(member.state)
        is_left_out = state in {Outcome.LOST, Outcome.LATE}
        return ParticipantReport(
            node_id=member.node_id,
            role=ROLES.from_wire(member.role),
            state=state,
            span_len=member.span_len,
            passages=member.num_passages,
            text_tokens=member.text_len,
            influence=member.influence if member.HasField("influence") else None,
            missing_from_layer=member.missing_from_layer if is_left_out else None,
            detail=member.detail,
            wait_s=member.wait_s,
            compute_s=member.compute_s,
            bytes_up=sum(layer.up for layer in member.layers),
            bytes_down=sum(layer.down for layer in member.layers),
            layers=[LayerTraffic(layer=at.layer, up=at.up, down=at.down) for at in member.layers],
            sync_layers=list(member.sync_layers),
            compression=_compression(member) if member.HasField("compression") else None,
            rows=ROW_SOURCES.find(member.row_source),
            round_trips=member.round_trips,
            planned=_planned(member.planned) if member.HasField("planned") else None,
            timeline=[_slice(piece) for piece in member.timeline],
            **_context_counts(member),
        )


def _context_counts(
    owner: session_pb2.MemberReport | aggregator_pb2.NodeInfo,
) -> dict[str, Any]:
    """Fields of `ContextCounts`."""
    known = context_from_wire(owner.context) if owner.HasField("context") else None
    return {
        "context_tokens": known and known.num_tokens,
        "context_passages": known and known.num_passages,
        "context_files": known and known.num_files,
        "skipped_files": dict(known.skipped) if known else {},
    }


def _compression(member: session_pb2.MemberReport) -> RowsReport:
    return RowsReport.of(compression_from_wire(member.compression), member.span_len)


def _slice(piece: session_pb2.Slice) -> TimelineSlice:
    return TimelineSlice(
        activity=ACTIVITIES.from_wire(piece.activity),
        layer=piece.layer,
        begin_s=piece.begin_s,
        duration_s=piece.duration_s,
    )


def _planned(message: session_pb2.PlannedCost) -> PlannedCost:
    return PlannedCost(
        bytes_up=message.bytes_up,
        bytes_down=message.bytes_down,
        flops_prefill=message.flops_prefill,
        flops_decode=message.flops_decode,
        peak_memory_bytes=message.peak_memory_bytes,
    )


@contextmanager
def _known_words(speaker: str) -> Iterator[None]:
    """A word a node says that is not known here is no fault of the client."""
    try:
        yield
    except InvalidInputError as error:
        raise ProtocolMismatchError(f"{speaker}: {error}") from error
