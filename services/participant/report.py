"""The report of a session, as its publisher has it."""

from fedattn.core.terms import SessionTerms
from fedattn.wire.enums import ROLES
from fedattn.wire.v1 import session_pb2 as pb

_CLEAN = {pb.OUTCOME_COMPLETE, pb.OUTCOME_EXCLUDED}


def is_clean(report: pb.SessionReport) -> bool:
    """Whether everybody did its part."""
    return all(member.state in _CLEAN for member in report.members)


def local_report(terms: SessionTerms, left_out: set[int]) -> pb.SessionReport:
    """What a node knows by itself of a session: who took part, but no byte counts.

    Args:
        terms: of the session.
        left_out: members that this node went on without.
    """
    members = [
        pb.MemberReport(
            node_id=member.node_id,
            role=ROLES.to_wire(member.role),
            state=pb.OUTCOME_LOST if index in left_out else pb.OUTCOME_COMPLETE,
            span_len=len(member.span),
            detail="bytes and times are missing: the aggregator was lost before its report",
        )
        for index, member in enumerate(terms.layout.members)
    ]
    return pb.SessionReport(session_id=terms.session_id, members=members)
