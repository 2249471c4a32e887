"""The publisher's own word of a member, in the aggregator's report."""

import pytest

from fedattn.wire.v1 import session_pb2 as pb
from services.participant.report import corrected_report
from tests.unit.test_relay import make_session

WORD = "its rows did not come"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("", f"p: {WORD}"),
        (f"lost; b, p: {WORD}", f"lost; b, p: {WORD}"),
        (f"{WORD}; b: late", f"{WORD}; b: late"),
        (f"b: {WORD}", f"p: {WORD}; b: {WORD}"),
        ("lost; p: all is well", f"p: {WORD}; lost; p: all is well"),
    ],
)
def test_own_word_comes_first_unless_it_is_told_already(told: str, expected: str) -> None:
    terms = make_session().opened.terms
    member = pb.MemberReport(node_id="a", state=pb.OUTCOME_LOST, detail=told)
    report = corrected_report(pb.SessionReport(members=[member]), terms, {0: (1, WORD)})
    assert report.members[0].detail == expected
