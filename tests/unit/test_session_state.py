"""The state machine of a session's members."""

import itertools
from dataclasses import replace

import pytest

from fedattn.core.chunks import FrameValidator, split_frame
from fedattn.core.errors import SessionStateError
from fedattn.core.frames import encode_frame
from fedattn.core.session import MemberLedger, MemberState, SessionState
from tests.harness.samples import ROTARY, sample_rows
from tests.unit.test_inbox import make_state

W, A, C, L = MemberState.WAITING, MemberState.ATTACHED, MemberState.COMPLETE, MemberState.LOST


def sample_frame_of(state: SessionState, index: int, layer: int) -> bytes:
    member = state.member(index)
    rows = sample_rows(shape=state.shape, span=member.span)
    return encode_frame(rows, layer, member.compression.codec, member.span, ROTARY)


ALLOWED = {(W, A), (W, L), (A, C), (A, L)}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(MemberState, MemberState)))
def test_only_the_drawn_steps_are_possible(before: MemberState, after: MemberState) -> None:
    ledger = MemberLedger(FrameValidator(make_state().frame_specs(0, ())), state=before)
    if (before, after) in ALLOWED:
        ledger.move(after)
        assert ledger.state is after
    else:
        with pytest.raises(SessionStateError, match=f"is {before.value} cannot be {after.value}"):
            ledger.move(after)


def test_rows_go_only_to_those_who_want_them_and_are_still_there() -> None:
    state = make_state()
    assert state.receivers(0, 1) == (2,)
    assert state.successors(0) == (1, 2)
    state.ledgers[2].move(MemberState.LOST)
    assert state.receivers(0, 1) == ()


def test_bytes_add_up_a_layer_and_direction() -> None:
    state = make_state()
    frame = sample_frame_of(state, 0, layer=1)
    for chunk in split_frame(frame, 1):
        state.accept(0, chunk)
    state.count_down(2, 1, 10)
    state.count_down(2, 1, 5)
    assert state.ledgers[0].bytes_up == {1: len(frame)}
    assert state.ledgers[0].awaited == {0, 2}
    assert state.ledgers[2].bytes_down == {1: 15}


def test_missing_layer_is_the_first_that_somebody_lacked() -> None:
    state = make_state()
    ledger = state.ledgers[0]
    assert state.ledgers[1].missing_from is None
    for chunk in split_frame(sample_frame_of(state, 0, layer=0), 0):
        state.accept(0, chunk)
    ledger.move(MemberState.LOST)
    assert ledger.missing_from == 1
    state.note_late(0, 2, "slow", by=2)
    state.note_late(0, 0, "slow", by=1)
    state.note_late(0, 1, "mute", by=1)
    assert ledger.missing_from == 0


def test_nobody_speaks_for_another_in_what_members_say_of_one() -> None:
    state = make_state()
    state.note_late(0, 1, "slow; publisher: it had all", by=1)
    assert state.explain(0) == f"{state.member(1).node_id}: slow, publisher: it had all"


def test_session_is_over_when_everyone_is() -> None:
    state = make_state()
    for ledger in state.ledgers:
        assert not state.is_over
        ledger.move(MemberState.ATTACHED)
        ledger.move(MemberState.COMPLETE)
    assert state.is_over


def test_contributors_of_whom_nobody_needs_rows_are_complete_from_the_start() -> None:
    layout = make_state().layout
    first, *others = layout.members
    members = (replace(first, is_cached_by_publisher=True), *others)
    state = SessionState(replace(layout, members=members), make_state().shape)
    assert [ledger.state for ledger in state.ledgers] == [C, W, W]
    assert state.is_idle(0)
    assert not state.is_idle(2)
    with pytest.raises(SessionStateError, match="is complete cannot be attached"):
        state.ledgers[0].move(MemberState.ATTACHED)
    assert state.key_receivers(0) == ()
