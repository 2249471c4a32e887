"""Paired comparisons, checked by hand."""

import pytest

from fedattn.research.evaluate.pairs import bootstrap_mean, compare, mcnemar
from fedattn.research.evaluate.scores import CaseScore, summarize_scores


def score(*, match: bool, nll: float | None = 1.0, divergence: float | None = 0.0) -> CaseScore:
    return CaseScore(text="", match=match, nll=nll, divergence=divergence, kv_bytes=10)


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    [
        (0, 0, 1.0),
        (0, 1, 1.0),
        (0, 5, 2 / 32),
        (5, 0, 2 / 32),
        (1, 5, 2 * (1 + 6) / 64),
        (3, 3, 1.0),
        (0, 10, 2 / 1024),
    ],
)
def test_p_is_the_share_of_coin_throws_as_uneven(gained: int, lost: int, p_value: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p_value)


def test_answers_gained_and_lost_are_counted_in_pairs() -> None:
    baseline = [score(match=True), score(match=True), score(match=False), score(match=False)]
    variant = [score(match=True), score(match=False), score(match=False), score(match=True)]
    found = compare(variant, baseline, [0, 0, 1, 1])
    assert (found.cases, found.worlds, found.gained, found.lost) == (4, 2, 1, 1)
    assert found.p_value == 1.0
    assert found.right.mean == 0.0


def test_differences_are_of_the_variant_minus_the_baseline() -> None:
    baseline = [score(match=True, nll=1.0), score(match=True, nll=2.0)]
    variant = [score(match=True, nll=1.5, divergence=0.1), score(match=True, nll=3.5)]
    found = compare(variant, baseline, [0, 1])
    assert found.nll is not None
    assert found.divergence is not None
    assert found.nll.mean == pytest.approx(1.0)
    assert found.divergence.mean == pytest.approx(0.05)
    assert (found.nll.low, found.nll.high) == (0.5, 1.5)


def test_a_world_is_drawn_whole() -> None:
    """Draws of two worlds have three possible means; the outer ones come in a quarter each."""
    found = bootstrap_mean([1, 2, 6], [0, 0, 1])
    assert (found.mean, found.low, found.high) == (3.0, 1.5, 6.0)


def test_cases_that_share_contexts_make_the_interval_wider() -> None:
    values = [float(world) for world in range(8) for _ in range(10)]
    together = bootstrap_mean(values, [int(value) for value in values])
    apart = bootstrap_mean(values, range(80))
    widths = [one.high - one.low for one in (together, apart) if one.high and one.low]
    assert widths[0] > 2 * widths[1]


def test_the_interval_of_many_worlds_is_that_of_the_normal_distribution() -> None:
    values = [0.0, 1.0] * 200  # standard error of the mean: 0.5 / 20
    found = bootstrap_mean(values, range(400))
    assert found.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.006)
    assert found.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.006)


def test_the_same_cases_give_the_same_interval() -> None:
    values, worlds = [0.1, 0.7, 0.2, 0.4], [5, 5, 9, 2]
    assert bootstrap_mean(values, worlds) == bootstrap_mean(values, worlds)


def test_one_world_has_no_interval() -> None:
    found = bootstrap_mean([1.0, 3.0], [4, 4])
    assert (found.mean, found.low, found.high) == (2.0, None, None)


def test_what_a_case_does_not_know_is_left_out() -> None:
    baseline = [score(match=True, divergence=0.0), score(match=True, divergence=None)]
    variant = [score(match=True, nll=None, divergence=0.3), score(match=True, nll=None)]
    found = compare(variant, baseline, [0, 1])
    assert found.nll is None
    assert found.divergence is not None
    assert found.divergence.mean == pytest.approx(0.3)
    assert summarize_scores(variant)["nll"] is None
    assert summarize_scores(baseline)["divergence"] == 0.0
