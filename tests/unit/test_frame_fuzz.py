"""Damaged frames: read as valid rows or refused by name, whatever was done to them."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import checks, frames
from tests.fuzz.checks import Outcome, ViolationError, check_chunks, check_decoding
from tests.fuzz.mutations import MUTATIONS, mutate
from tests.fuzz.targets import Target, all_targets

any_target = st.sampled_from(all_targets())
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=800)
@given(any_target, seeds)
def test_damaged_frame_is_read_as_valid_rows_or_refused(target: Target, seed: int) -> None:
    _, frame = mutate(target, Random(seed))
    check_decoding(target, frame)


@settings(max_examples=800)
@given(any_target, seeds)
def test_damaged_frame_in_chunks_that_may_lie_is_put_together_or_refused(
    target: Target, seed: int
) -> None:
    random = Random(seed)
    _, frame = mutate(target, random)
    check_chunks(target, frame, random)


@pytest.mark.parametrize("target", all_targets(), ids=lambda target: target.name)
def test_undamaged_frame_is_read_however_it_is_cut(target: Target) -> None:
    assert check_decoding(target, target.frame) is Outcome.ROWS
    for seed in range(20):
        assert check_chunks(target, target.frame, Random(seed)) is Outcome.ROWS


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_every_kind_of_damage_changes_the_frame(name: str) -> None:
    changed = 0
    for seed, target in enumerate(all_targets()):
        frame = bytearray(target.frame)
        MUTATIONS[name](target, frame, Random(seed))
        changed += bytes(frame) != target.frame
    assert changed > 0


def test_longer_run_reports_what_it_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert frames.run(100, seed=0)
    printed = capsys.readouterr().out
    assert "100 frames of 36 kinds, seed 0: no violation" in printed
    assert "other levels" in printed


def test_violation_is_reported_with_a_frame_to_try_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise IndexError("out of bounds")

    monkeypatch.setattr(checks, "decode_frame", crash)
    assert not frames.run(1, seed=0)
    assert "IndexError('out of bounds')" in (printed := capsys.readouterr().out)
    assert "--frame 464b5631" in printed
    with pytest.raises(ViolationError):
        check_decoding(all_targets()[0], all_targets()[0].frame)
