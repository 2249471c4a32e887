"""The report of a session, as its publisher has it."""

from collections.abc import Container, Iterable, Mapping

from fedattn.core.terms import SessionTerms
from fedattn.wire.enums import ROLES
from fedattn.wire.v1 import session_pb2 as pb

_NO_COUNTS = "bytes and times are missing: the aggregator was lost before its report"
_LEFT_OUT = {pb.OUTCOME_LOST, pb.OUTCOME_LATE}
_CLEAN = {pb.OUTCOME_COMPLETE, pb.OUTCOME_EXCLUDED, pb.OUTCOME_EMPTY, pb.OUTCOME_DEPARTED}


def is_clean(report: pb.SessionReport) -> bool:
    """Whether everybody did its part."""
    return all(member.state in _CLEAN for member in report.members)


def corrected_report(
    report: pb.SessionReport, terms: SessionTerms, left_out: Mapping[int, tuple[int, str]]
) -> pb.SessionReport:
    """The aggregator's report, unless this publisher knows better what came and what did not.

    Args:
        report: of the aggregator.
        terms: of the session.
        left_out: member -> first layer at which this node went on without it, and why.
    """
    own_id = terms.layout.publisher.node_id
    corrected = pb.SessionReport()
    corrected.CopyFrom(report)
    told = {member.node_id: member for member in corrected.members}
    for index, known in enumerate(terms.layout.members):
        member = told.get(known.node_id)
        if member is None:
            member = corrected.members.add(
                node_id=known.node_id, role=ROLES.to_wire(known.role), state=pb.OUTCOME_COMPLETE
            )
        if index in left_out:
            _blame(member, *left_out[index], own_id)
        elif member.state == pb.OUTCOME_LATE:
            member.detail = f"{member.detail}; {own_id} had all its rows"
    return corrected


def _blame(member: pb.MemberReport, layer: int, reason: str, own_id: str) -> None:
    """Say that this node went on without it, unless the aggregator says so too."""
    if member.state not in _LEFT_OUT:
        member.state, member.missing_from_layer, member.detail = pb.OUTCOME_LATE, layer, ""
    member.missing_from_layer = member.missing_from_layer or layer
    if not _is_told(member.detail, own_id, reason):
        own_word = f"{own_id}: {reason.replace(';', ',')}"
        member.detail = "; ".join(filter(None, [own_word, member.detail]))


def _is_told(detail: str, node_id: str, reason: str) -> bool:
    """Whether it begins with a reason, or names a node for it, as in: lost; a, b: reason."""
    if f"{detail}; ".startswith(f"{reason}; "):
        return True
    reason = reason.replace(";", ",")
    for part in detail.split("; "):
        speakers, _, said = part.partition(": ")
        if node_id in speakers.split(", ") and said == reason:
            return True
    return False


def add_influences(report: pb.SessionReport, found: pb.SessionReport) -> None:
    """Put what this publisher found of the members' influence into a report, and nobody else's."""
    influences = {one.node_id: one.influence for one in found.members}
    for member in report.members:
        member.ClearField("influence")
        if member.node_id in influences:
            member.influence = influences[member.node_id]


def local_report(
    terms: SessionTerms,
    left_out: Mapping[int, tuple[int, str]],
    late: Container[int],
    excluded: Iterable[pb.MemberReport],
) -> pb.SessionReport:
    """What a node knows by itself of a session: who took part, but no byte counts.

    Args:
        terms: of the session.
        left_out: member -> first layer at which this node went on without it, and why.
        late: those of them that were late and not lost.
        excluded: nodes that take no part, as told when the session was opened.
    """
    members = [
        pb.MemberReport(
            node_id=member.node_id,
            role=ROLES.to_wire(member.role),
            span_len=len(member.span),
            state=pb.OUTCOME_COMPLETE,
            detail=_NO_COUNTS,
        )
        for member in terms.layout.members
    ]
    for index, (layer, reason) in left_out.items():
        members[index].state = pb.OUTCOME_LATE if index in late else pb.OUTCOME_LOST
        members[index].missing_from_layer = layer
        members[index].detail = f"{reason}; {_NO_COUNTS}"
    return pb.SessionReport(session_id=terms.session_id, members=[*members, *excluded])
