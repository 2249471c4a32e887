"""Every order in which nodes join, answer, exchange, fail and freeze leaves an aggregator whole.

A hypothesis machine drives the five calls of the aggregator in virtual time, as nodes that do
whatever they like. `tests/harness/crowd.py` has the nodes.
"""

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from structlog.testing import capture_logs

from fedattn.wire.v1 import session_pb2
from tests.harness.crowd import CONTRIBUTORS, NODES, Crowd
from tests.harness.peers import Member

T = TypeVar("T")
PICK = st.integers(0, 11)
LAYERS = st.sampled_from([(1, 2), (2,), (), (1, 2, 3)])
DEADLINE_S = st.sampled_from([5.0, 30.0, 120.0])
LONGEST_S = 120.0
SECONDS = st.sampled_from([0.1, 0.3, 1.0, 2.5, 6.0, 11.0, 40.0])
FEW = st.sets(st.sampled_from(NODES), max_size=2)
COMPLETE, LOST = session_pb2.OUTCOME_COMPLETE, session_pb2.OUTCOME_LOST
LATE, EXCLUDED = session_pb2.OUTCOME_LATE, session_pb2.OUTCOME_EXCLUDED


class Interleavings(RuleBasedStateMachine):
    """Nodes that do anything at any time."""

    def __init__(self) -> None:
        super().__init__()
        self._capturing = capture_logs()
        self._logs = self._capturing.__enter__()
        self.crowd = Crowd()

    # nodes

    @rule(node=st.sampled_from(NODES))
    def join(self, node: str) -> None:
        self.crowd.join(node)

    @precondition(lambda self: bool(self.crowd.joined()))
    @rule(pick=PICK, politely=st.booleans())
    def leave(self, pick: int, *, politely: bool) -> None:
        self.crowd.leave(one_of(self.crowd.joined(), pick), politely=politely)

    @rule(node=st.sampled_from(NODES), frozen=st.booleans())
    def freeze(self, node: str, *, frozen: bool) -> None:
        self.crowd.freeze(node, frozen=frozen)

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.crowd.wait(seconds)

    # opening

    @precondition(lambda self: bool(self.crowd.awake()))
    @rule(pick=PICK, layers=LAYERS, deadline_s=DEADLINE_S, named=st.booleans(), least=PICK)
    def open(
        self, pick: int, layers: tuple[int, ...], deadline_s: float, least: int, *, named: bool
    ) -> None:
        publisher = one_of(self.crowd.awake(), pick)
        names = [one for one in CONTRIBUTORS if one != publisher.node_id] if named else []
        self.crowd.open(publisher, layers, deadline_s, names, 1 + least % 3)

    @rule(layers=LAYERS, deadline_s=DEADLINE_S, silent=FEW, away=FEW)
    def begin(
        self, layers: tuple[int, ...], deadline_s: float, silent: set[str], away: set[str]
    ) -> None:
        """A session of all that accept, with those that come."""
        for node in NODES:
            self.crowd.freeze(node, frozen=False)
            self.crowd.join(node)
        self.crowd.open(self.crowd.peers["publisher"], layers, deadline_s, [], 1)
        for peer, invite in self.crowd.invited():
            if peer.node_id not in silent:
                self.crowd.accept(peer, invite, 2)
        if silent:
            self.crowd.wait(11.0)
        for member in self.crowd.absent():
            if member.node_id not in away:
                self.crowd.attach(member)

    @precondition(lambda self: bool(self.crowd.openings))
    @rule(pick=PICK)
    def give_up_opening(self, pick: int) -> None:
        self.crowd.give_up(one_of(self.crowd.openings, pick))

    @precondition(lambda self: bool(self.crowd.invited()))
    @rule(pick=PICK, span_len=st.integers(0, 3))
    def accept(self, pick: int, span_len: int) -> None:
        self.crowd.accept(*one_of(self.crowd.invited(), pick), span_len)

    @precondition(lambda self: bool(self.crowd.invited()))
    @rule()
    def accept_all(self) -> None:
        for number, (peer, invite) in enumerate(self.crowd.invited()):
            self.crowd.accept(peer, invite, 1 + number % 3)

    @precondition(lambda self: bool(self.crowd.awake() and self.crowd.invites))
    @rule(pick=PICK, other=PICK)
    def decline(self, pick: int, other: int) -> None:
        session_id = one_of(self.crowd.invites, other)
        self.crowd.decline(one_of(self.crowd.awake(), pick), session_id)

    # exchange

    @precondition(lambda self: bool(self.crowd.absent()))
    @rule(pick=PICK)
    def attach(self, pick: int) -> None:
        self.crowd.attach(one_of(self.crowd.absent(), pick))

    @precondition(lambda self: bool(self.crowd.absent()))
    @rule()
    def attach_all(self) -> None:
        for member in self.crowd.absent():
            self.crowd.attach(member)

    @precondition(lambda self: bool(self.crowd.present()))
    @rule(pick=PICK)
    def attach_twice(self, pick: int) -> None:
        self.crowd.attach(one_of(self.crowd.present(), pick))

    @precondition(lambda self: bool(self.crowd.present()))
    @rule(pick=PICK, times=st.integers(1, 6))
    def send(self, pick: int, times: int) -> None:
        for _ in range(times):
            self.crowd.send(one_of(self.crowd.present(), pick))

    @precondition(lambda self: bool(self.crowd.present()))
    @rule(away=FEW)
    def finish(self, away: set[str]) -> None:
        """Those that are there send all they have, and say so."""
        for member in self.crowd.present():
            if member.node_id not in away:
                while member.to_send:
                    self.crowd.send(member)
                self.crowd.say_done(member, late=False)

    @precondition(lambda self: bool(self.crowd.present()))
    @rule(pick=PICK)
    def send_nonsense(self, pick: int) -> None:
        self.crowd.send_nonsense(one_of(self.crowd.present(), pick))

    @precondition(lambda self: bool(self.crowd.present()))
    @rule(pick=PICK, late=st.booleans())
    def say_done(self, pick: int, *, late: bool) -> None:
        self.crowd.say_done(one_of(self.crowd.present(), pick), late=late)

    @precondition(lambda self: bool(self.crowd.present()))
    @rule(pick=PICK, reads=st.booleans())
    def read(self, pick: int, *, reads: bool) -> None:
        self.crowd.read(one_of(self.crowd.present(), pick), reads=reads)

    @precondition(lambda self: bool(self.crowd.present()))
    @rule(pick=PICK, politely=st.booleans())
    def hang_up(self, pick: int, *, politely: bool) -> None:
        self.crowd.hang_up(one_of(self.crowd.present(), pick), politely=politely)

    # what holds

    @invariant()
    def sessions_are_not_held_beyond_their_end(self) -> None:
        for session in self.crowd.holds.sessions():
            assert not session.over.is_set()
            lasts_s = self.crowd.now() - session.begun_at
            assert lasts_s <= session.opened.terms.deadline_s + 1e-6

    @invariant()
    def places_are_those_of_sessions_and_openings(self) -> None:
        assert (
            self.crowd.holds.num_places()
            == len(self.crowd.holds.sessions()) + self.crowd.holds.num_opening()
        )
        assert self.crowd.holds.num_open_by_metrics() == len(self.crowd.holds.sessions())

    @invariant()
    def who_is_listed_has_a_control_stream(self) -> None:
        assert self.crowd.holds.listed() <= {peer.node_id for peer in self.crowd.connected()}

    @invariant()
    def outboxes_are_bounded_and_those_of_the_lost_empty(self) -> None:
        self.crowd.holds.check_outboxes()

    @invariant()
    def members_that_read_learn_the_end_of_their_session(self) -> None:
        running = {session.session_id for session in self.crowd.holds.sessions()}
        for member in self.crowd.present():
            assert not member.is_reading or member.session_id in running, member.node_id

    @invariant()
    def invited_nodes_are_told_what_becomes_of_it(self) -> None:
        if self.crowd.holds.num_opening() == 0:
            assert self.crowd.left_in_the_dark() == []

    @invariant()
    def reports_are_honest(self) -> None:
        for publisher, report in self.crowd.new_reports():
            self._check_report(publisher, report)

    def _check_report(self, publisher: Member, report: session_pb2.SessionReport) -> None:
        told = [one.node_id for one in report.members]
        assert len(set(told)) == len(told)
        assert publisher.expected <= set(told), "a node that was joined is left out without a word"
        for one in report.members:
            member = self.crowd.member(publisher.session_id, one.node_id)
            sent = 0 if member is None else member.sent_bytes
            assert sum(layer.up for layer in one.layers) <= sent
            if one.state in {LOST, LATE}:
                assert one.missing_from_layer
                assert one.detail
            if one.state == EXCLUDED:
                assert one.detail
            if one.state == COMPLETE and member is not None:
                assert not member.to_send

    def teardown(self) -> None:
        """Everybody freezes for ever: all that is left ends by the clock of the aggregator."""
        try:
            for node in NODES:
                self.crowd.freeze(node, frozen=True)
            self.crowd.wait(LONGEST_S + 60.0)
            self.crowd.check_nothing_is_left()
            assert not [entry for entry in self._logs if "exc_info" in entry]
        finally:
            self.crowd.close()
            self._capturing.__exit__(None, None, None)


def one_of(things: Sequence[T], pick: int) -> T:
    """One of them."""
    return things[pick % len(things)]


def test_a_node_that_reads_nothing_leaves_with_its_heartbeats() -> None:
    crowd = Crowd()
    crowd.join("a")
    crowd.freeze("a", frozen=True)
    crowd.wait(14.0)
    assert crowd.holds.listed() == {"a"}
    crowd.wait(8.0)
    crowd.check_nothing_is_left()
    crowd.close()


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(
    max_examples=250,
    stateful_step_count=30,
    phases=[Phase.generate],  # to shrink a failure takes minutes
    report_multiple_bugs=False,
)
