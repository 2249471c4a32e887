"""How many tokens are drafted: by what a pass takes, what a draft takes, and what holds."""

import pytest

from fedattn.model.draft_pace import MOST_DRAFTS, DraftPace

DRAFT_S, EACH_S = 0.04, 0.02


def run(pace: DraftPace, *, wait_s: float, holds: bool, passes: int = 40) -> list[int]:
    """Passes of an answer on a network; all drafts hold, or none. What was chosen, pass by pass."""
    chosen = []
    for _ in range(passes):
        num_drafts = pace.choose(100)
        chosen.append(num_drafts)
        if num_drafts:
            pace.drafted(num_drafts, num_drafts * DRAFT_S)
        held = num_drafts if holds else 0
        pace.verified(num_drafts, held, wait_s + EACH_S * (num_drafts + 1))
    return chosen


def test_a_slow_network_and_drafts_that_hold_want_as_many_as_there_may_be() -> None:
    assert run(DraftPace(), wait_s=2.0, holds=True)[-1] == MOST_DRAFTS


def test_drafts_that_never_hold_end_but_for_a_probe_now_and_then() -> None:
    chosen = run(DraftPace(), wait_s=0.5, holds=False, passes=80)[20:]
    assert 0 < sum(chosen) <= len(chosen) // 8
    assert set(chosen) == {0, 1}


def test_asking_that_is_faster_than_drafting_is_done_for_each_token() -> None:
    chosen = run(DraftPace(), wait_s=0.0, holds=False, passes=30)
    assert chosen[-1] == 0


def test_a_network_that_slows_down_brings_drafts_back() -> None:
    pace = DraftPace()
    run(pace, wait_s=0.001, holds=False)
    assert max(run(pace, wait_s=3.0, holds=True, passes=60)) == MOST_DRAFTS


def test_no_more_are_drafted_than_the_answer_may_have() -> None:
    pace = DraftPace()
    assert pace.choose(0) == 0
    assert pace.choose(1) == 1
    run(pace, wait_s=2.0, holds=True)
    assert pace.choose(3) == 3


@pytest.mark.parametrize(("held", "expected"), [(0, 0.0), (1, 0.5), (4, 1.0)])
def test_acceptance_counts_drafts_up_to_the_first_that_is_wrong(held: int, expected: float) -> None:
    pace = DraftPace()
    for _ in range(200):
        pace.drafted(4, 0.1)
        pace.verified(4, held, 0.1)
    assert pace.acceptance == pytest.approx(expected, abs=1e-6)


def test_expected_speed_is_tokens_by_the_time_of_drafts_and_pass() -> None:
    pace = DraftPace()
    for num_drafts in (1, 3) * 100:
        pace.drafted(num_drafts, num_drafts * 0.1)
        pace.verified(num_drafts, num_drafts, 1.0 + 0.05 * (num_drafts + 1))
    assert pace.acceptance == pytest.approx(1.0)
    assert pace.tokens_per_s(4) == pytest.approx(5 / (4 * 0.1 + 1.0 + 5 * 0.05))
