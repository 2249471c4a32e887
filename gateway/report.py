"""From wire messages to what the gateway answers with."""

from fedattn.core.codecs import find_codec
from fedattn.core.errors import ProtocolMismatchError
from fedattn.wire.v1 import aggregator_pb2, participant_pb2, session_pb2
from gateway.schemas import (
    ActivityName,
    AppliedCompression,
    FinishName,
    LayerEvent,
    LayerTraffic,
    NodeHealth,
    ParticipantInfo,
    ParticipantReport,
    PlannedCost,
    PressureName,
    QueryAnswer,
    RoleName,
    RowSourceName,
    SessionEvent,
    SessionMember,
    StateName,
    TimelineSlice,
    TokenEvent,
    Totals,
    WarmAnswer,
)

_STATES: dict[int, StateName] = {
    session_pb2.OUTCOME_COMPLETE: "complete",
    session_pb2.OUTCOME_LOST: "lost",
    session_pb2.OUTCOME_LATE: "late",
    session_pb2.OUTCOME_EXCLUDED: "excluded",
}
_FINISH_REASONS: dict[int, FinishName] = {
    participant_pb2.FINISH_REASON_END: "end",
    participant_pb2.FINISH_REASON_LENGTH: "length",
    participant_pb2.FINISH_REASON_STOP: "stop",
}
_ROW_SOURCES: dict[int, RowSourceName] = {
    session_pb2.ROW_SOURCE_COMPUTED: "computed",
    session_pb2.ROW_SOURCE_CONTRIBUTOR_CACHE: "kept",
    session_pb2.ROW_SOURCE_PUBLISHER_CACHE: "held",
}
_ACTIVITIES: dict[int, ActivityName] = {
    session_pb2.ACTIVITY_OPEN: "open",
    session_pb2.ACTIVITY_COMPUTE: "compute",
    session_pb2.ACTIVITY_ENCODE: "encode",
    session_pb2.ACTIVITY_SEND: "send",
    session_pb2.ACTIVITY_WAIT: "wait",
    session_pb2.ACTIVITY_DECODE: "decode",
    session_pb2.ACTIVITY_GENERATE: "generate",
}
_PRESSURES: dict[int, PressureName] = {
    aggregator_pb2.PRESSURE_NONE: "none",
    aggregator_pb2.PRESSURE_HIGH: "high",
    aggregator_pb2.PRESSURE_CRITICAL: "critical",
}


def answer_from_wire(result: participant_pb2.QueryResult) -> QueryAnswer:
    """The final document.

    Raises:
        ProtocolMismatchError: the publisher says something not known here.
    """
    if result.finish_reason not in _FINISH_REASONS:
        raise ProtocolMismatchError(
            f"the publisher sent finish reason {result.finish_reason}, which is not known here; "
            f"upgrade the gateway"
        )
    participants = [_report_from_wire(member) for member in result.report.members]
    return QueryAnswer(
        session_id=result.report.session_id,
        answer=result.text,
        finish_reason=_FINISH_REASONS[result.finish_reason],
        prompt_tokens=result.prompt_tokens,
        num_tokens=result.num_tokens,
        participants=participants,
        totals=Totals(
            time_to_first_token_s=result.time_to_first_token_s,
            tokens_per_s=_tokens_per_s(result),
            kv_bytes=sum(participant.bytes_up for participant in participants),
            planned_kv_bytes=sum(part.planned.bytes_up for part in participants if part.planned),
            kv_bytes_down=sum(participant.bytes_down for participant in participants),
        ),
    )


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
    """Who takes part, where."""
    return SessionEvent(
        session_id=opened.terms.session_id,
        prefix_len=opened.terms.prefix_len,
        members=[
            SessionMember(
                node_id=member.node_id,
                role=_role_from_wire(member.role),
                span_start=member.span_start,
                span_stop=member.span_stop,
                sync_layers=list(member.sync_layers),
            )
            for member in opened.terms.members
        ],
        excluded=[_report_from_wire(member) for member in opened.excluded],
    )


def layer_from_wire(progress: participant_pb2.LayerProgress) -> LayerEvent:
    """The publisher has passed a sync layer."""
    return LayerEvent(layer=progress.layer, num_rows=progress.num_rows, wait_s=progress.wait_s)


def token_from_wire(token: participant_pb2.TokenText) -> TokenEvent:
    """A piece of the answer."""
    return TokenEvent(text=token.text)


def participant_from_wire(node: aggregator_pb2.NodeInfo, *, can_publish: bool) -> ParticipantInfo:
    """A node that is joined now."""
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
    )


def _health_from_wire(health: aggregator_pb2.Health) -> NodeHealth:
    return NodeHealth(
        pressure=_PRESSURES[health.pressure],
        memory_free=health.memory_free,
        temperature_c=health.temperature_c or None,
    )


def _report_from_wire(member: session_pb2.MemberReport) -> ParticipantReport:
    if member.state not in _STATES:
        raise ProtocolMismatchError(
            f"node {member.node_id!r} is reported in state {member.state}, which is not known "
            f"here; upgrade the gateway"
        )
    state = _STATES[member.state]
    return ParticipantReport(
        node_id=member.node_id,
        role=_role_from_wire(member.role),
        state=state,
        span_len=member.span_len,
        missing_from_layer=member.missing_from_layer if state in {"lost", "late"} else None,
        detail=member.detail,
        wait_s=member.wait_s,
        compute_s=member.compute_s,
        bytes_up=sum(layer.up for layer in member.layers),
        bytes_down=sum(layer.down for layer in member.layers),
        layers=[
            LayerTraffic(layer=layer.layer, up=layer.up, down=layer.down) for layer in member.layers
        ],
        sync_layers=list(member.sync_layers),
        compression=_compression(member) if member.HasField("compression") else None,
        rows=_ROW_SOURCES.get(member.row_source),
        planned=_planned(member.planned) if member.HasField("planned") else None,
        timeline=[
            TimelineSlice(
                activity=_ACTIVITIES[piece.activity],
                layer=piece.layer,
                begin_s=piece.begin_s,
                duration_s=piece.duration_s,
            )
            for piece in member.timeline
            if piece.activity in _ACTIVITIES
        ],
    )


def _compression(member: session_pb2.MemberReport) -> AppliedCompression:
    message = member.compression
    codec = find_codec(message.codec_id)
    if codec is None:
        raise ProtocolMismatchError(
            f"node {member.node_id!r} is reported with codec {message.codec_id}, which is not "
            f"known here; upgrade the gateway"
        )
    return AppliedCompression(
        codec=codec.name,
        keep_ratio=message.keep_ratio,
        selector=message.selector,
        keep_ends=message.keep_ends,
        input_keep_ratio=message.input_keep_ratio,
        seed=message.seed,
    )


def _planned(message: session_pb2.PlannedCost) -> PlannedCost:
    return PlannedCost(
        bytes_up=message.bytes_up,
        bytes_down=message.bytes_down,
        flops_prefill=message.flops_prefill,
        flops_decode=message.flops_decode,
        peak_memory_bytes=message.peak_memory_bytes,
    )


def _role_from_wire(role: session_pb2.Role.ValueType) -> RoleName:
    return "publisher" if role == session_pb2.ROLE_PUBLISHER else "contributor"
