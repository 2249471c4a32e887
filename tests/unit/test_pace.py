"""When a member that others wait for is too slow, by a clock that the test turns."""

from dataclasses import replace

from fedattn.core.chunks import Chunk
from fedattn.core.frames import encode_frame
from fedattn.core.session import MemberState, SessionState
from fedattn.core.types import KvShape
from services.aggregator.pace import Pace, PaceLimits
from tests.harness.samples import ROTARY, sample_layout, sample_rows
from tests.unit.test_quotas import Clock

A, B, PUBLISHER = 0, 1, 2
SHAPE = KvShape(num_layers=5, num_kv_heads=1, head_dim=2)
LIMITS = PaceLimits(
    attach_s=30.0, frame_s=30.0, margin_s=30.0, bytes_per_s=10.0, total_s=200.0, tick_s=1.0
)
EAGER = replace(LIMITS, margin_s=5.0)


class Race:
    """A session whose members a (2 tokens) and b (1) sync at some layers, p at 1 to 3."""

    def __init__(
        self,
        contributors: tuple[int, ...] = (),
        limits: PaceLimits = LIMITS,
        attached: tuple[int, ...] = (A, B, PUBLISHER),
    ) -> None:
        self.state = SessionState(sample_layout(contributors, (1, 2, 3)), SHAPE)
        self.clock = Clock()
        self.pace = Pace(self.state, limits, self.clock)
        self.waiting = [0, 0, 0]
        for index in attached:
            self.attach(index)
        self.pass_s(1)

    def attach(self, index: int) -> None:
        self.state.ledgers[index].move(MemberState.ATTACHED)
        self.pace.begin(index)

    def frame(self, index: int, layer: int) -> bytes:
        member = self.state.member(index)
        rows = sample_rows(shape=SHAPE, span=member.span)
        return encode_frame(rows, layer, member.compression.codec, member.span, ROTARY)

    def send(self, index: int, layer: int, start: int = 0, stop: int | None = None) -> None:
        """A piece of a frame, or all of it."""
        frame = self.frame(index, layer)
        chunk = Chunk(layer=layer, offset=start, frame_size=len(frame), data=frame[start:stop])
        self.state.accept(index, chunk)
        self.pace.note(index, chunk)

    def pass_s(self, seconds: int) -> dict[int, str]:
        """Let time pass with a look a second; who was too slow, and why at first."""
        slow: dict[int, str] = {}
        for _ in range(seconds):
            self.clock.now_s += 1.0
            for index, reason in self.pace.look(self.waiting.__getitem__):
                slow.setdefault(index, reason)
        return slow


def test_silent_member_is_named_once_others_have_waited_long_enough() -> None:
    race = Race()
    for layer in (1, 2, 3):
        race.send(B, layer)
    assert race.pass_s(30) == {}
    assert race.pass_s(1) == {A: "it sent no rows for 30 s while others waited for them"}


def test_each_whole_frame_begins_the_wait_anew() -> None:
    race = Race()
    for layer in (1, 2, 3):
        race.send(B, layer)
        race.send(A, layer)
        assert race.pass_s(29) == {}
    assert race.pass_s(1000) == {}


def test_dripping_member_gets_the_time_of_what_came_at_the_least_rate_and_no_more() -> None:
    race = Race()
    for layer in (1, 2, 3):
        race.send(B, layer)
    size = len(race.frame(A, 1))
    head = size - 9
    race.send(A, 1, 0, head)
    most = 30 + head // 10
    for sent in range(head, size - 1):
        assert race.pass_s(most // 9) == {}
        race.send(A, 1, sent, sent + 1)
    slow = race.pass_s(most)
    assert slow.keys() == {A}
    assert slow[A].startswith("it was slower than 10 bytes a second")


def test_head_of_a_frame_buys_no_time_for_what_never_comes() -> None:
    race = Race()
    for layer in (1, 2, 3):
        race.send(B, layer)
    race.send(A, 1, 0, 40)
    assert race.pass_s(34) == {}
    assert race.pass_s(1).keys() == {A}


def test_member_that_waits_for_rows_of_another_is_not_slow() -> None:
    race = Race(contributors=(1, 2, 3))
    race.send(B, 1)  # b needs a's rows of layer 1 for more
    slow = race.pass_s(60)
    assert slow.keys() == {A}
    race.state.ledgers[A].move(MemberState.LOST)
    assert race.pass_s(31) == {}
    assert race.pass_s(1).keys() == {B}


def test_member_has_time_to_take_what_waits_for_it() -> None:
    race = Race(contributors=(1, 2, 3))
    for layer in (1, 2, 3):
        race.send(A, layer)
    race.waiting[B] = 100
    assert race.pass_s(40) == {}
    assert race.pass_s(1).keys() == {B}


def test_time_in_which_nothing_is_taken_from_a_member_does_not_count() -> None:
    race = Race()
    for layer in (1, 2, 3):
        race.send(B, layer)
    with race.pace.held(A):
        assert race.pass_s(100) == {}
    assert race.pass_s(31) == {}
    assert race.pass_s(1).keys() == {A}


def test_nobody_is_slow_while_nobody_is_there_to_wait() -> None:
    race = Race()
    race.state.ledgers[PUBLISHER].move(MemberState.LOST)
    assert race.pass_s(100) == {}


def test_delay_of_the_aggregator_itself_is_nobodys_fault() -> None:
    race = Race()
    race.clock.now_s += 10_000.0
    assert race.pace.look(race.waiting.__getitem__) == []


def test_member_just_fast_enough_each_time_cannot_take_the_whole_deadline() -> None:
    limits = replace(LIMITS, total_s=60.0)
    race = Race(limits=limits)
    for layer in (1, 2, 3):
        race.send(B, layer)
    for layer in (1, 2):
        assert race.pass_s(25) == {}
        race.send(A, layer)
    assert race.pass_s(25) == {A: "it let others wait for more than 60 s, half of the deadline"}


def test_silent_member_has_ten_times_what_others_took_for_that_layer_and_a_margin() -> None:
    race = Race(limits=EAGER)
    assert race.pass_s(1) == {}
    race.send(B, 1)  # 2 s for its only token: a has two
    assert race.pass_s(28) == {}  # the hard limit comes first
    race.send(A, 1)
    race.send(B, 2)  # after 28 s
    race.send(A, 2)
    assert race.pass_s(1) == {}
    race.send(B, 3)  # after 1 s
    assert race.pass_s(24) == {}
    assert race.pass_s(1) == {A: "it sent no rows for 25 s while others waited for them"}


def test_nothing_follows_from_frames_that_were_cached() -> None:
    race = Race(limits=EAGER)
    layout = race.state.layout
    b = replace(layout.members[B], is_cached_by_owner=True)
    race.state.layout = replace(layout, members=(layout.members[A], b, layout.members[PUBLISHER]))
    for layer in (1, 2, 3):
        race.send(B, layer)
    assert race.pass_s(30) == {}
    assert race.pass_s(1).keys() == {A}


def test_who_drips_loses_by_rate_long_before_the_deadline_of_a_frame() -> None:
    race = Race(limits=replace(EAGER, frame_s=1000.0, bytes_per_s=20.0))
    race.send(A, 1, 0, 40)  # its header, then a byte a second
    slow: dict[int, str] = {}
    for sent in range(40, 48):
        slow |= race.pass_s(1)
        race.send(A, 1, sent, sent + 1)
    assert slow[A].startswith("it was slower than 20 bytes a second")


def test_member_that_does_not_attach_is_out_once_most_others_have() -> None:
    race = Race(limits=EAGER, attached=(A, PUBLISHER))
    assert race.pass_s(4) == {}
    slow = race.pass_s(1)
    assert slow == {B: "it did not begin its exchange within 5 s"}
    assert race.pace.is_at_fault(B)
    assert not race.pace.is_at_fault(A)


def test_member_has_the_whole_time_to_attach_while_most_others_have_not() -> None:
    race = Race(limits=EAGER, attached=(A,))
    assert race.pass_s(29) == {}
    slow = race.pass_s(1)
    assert slow.keys() == {B, PUBLISHER}
    assert not race.pace.is_at_fault(PUBLISHER)  # who asked lets nobody wait but itself


def test_whoever_let_others_wait_for_long_is_at_fault_whatever_ends_it() -> None:
    race = Race(limits=replace(EAGER, margin_s=10.0))
    assert race.pass_s(20) == {}
    assert not race.pace.is_at_fault(A)
    race.pass_s(1)
    assert race.pace.is_at_fault(A)
