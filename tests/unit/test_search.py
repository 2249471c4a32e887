"""Searches find the layers that matter, repeat themselves, and go on where they were stopped."""

from itertools import pairwise
from pathlib import Path

import pytest

from fedattn.core.plans import RolePlans, SyncPlan, shared_plan
from fedattn.research.calibrate.scorelog import ScoreLog
from fedattn.research.calibrate.search import STRATEGIES

WORTH = {1: 0.1, 2: 3.0, 3: 0.2, 4: 5.0, 5: 0.3, 6: 4.0, 7: 0.4}
LAYERS = tuple(WORTH)


class Worth:
    """A scorer: what the missing layers are worth; a pair that replaces each other on top."""

    def __init__(self) -> None:
        self.num_scored = 0

    def score(self, plans: RolePlans) -> float:
        self.num_scored += 1
        layers = set(plans.publisher.layers)
        missing = sum(worth for layer, worth in WORTH.items() if layer not in layers)
        return missing + (2.0 if not layers & {5, 7} else 0.0)

    def move_base(self, plans: RolePlans) -> None:
        pass


@pytest.mark.parametrize("name", STRATEGIES)
def test_search_finds_the_layers_that_matter(name: str) -> None:
    found = {one.plans.num_travelling: one for one in STRATEGIES[name](Worth(), LAYERS, 3)}
    assert found[3].plans == shared_plan((2, 4, 6))


@pytest.mark.parametrize("name", ["elimination", "addition", "exchange"])
def test_search_sees_that_one_of_two_layers_is_needed(name: str) -> None:
    found = {one.plans.num_travelling: one for one in STRATEGIES[name](Worth(), LAYERS, 4)}
    assert found[4].plans == shared_plan((2, 4, 6, 7))
    assert found[4].score == pytest.approx(0.6)


def test_plans_of_elimination_are_nested_and_never_block_0() -> None:
    layers = tuple(range(1, 30))

    class ByNumber(Worth):
        def score(self, plans: RolePlans) -> float:
            return -float(sum(plans.publisher.layers))

    found = [
        set(one.plans.publisher.layers) for one in STRATEGIES["elimination"](ByNumber(), layers, 2)
    ]
    assert all(after < before for before, after in pairwise(found))
    assert found[-1] == {28, 29}
    assert all(0 not in one for one in found)


def test_stopped_search_goes_on_without_scoring_anything_twice(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    whole = list(STRATEGIES["elimination"](Worth(), LAYERS, 2))
    first = Worth()
    search = STRATEGIES["elimination"](ScoreLog(first, path, "search 1"), LAYERS, 2)
    next(search), next(search)
    second = Worth()
    log = ScoreLog(second, path, "search 1")
    assert list(STRATEGIES["elimination"](log, LAYERS, 2)) == whole
    reference = Worth()
    list(STRATEGIES["elimination"](reference, LAYERS, 2))
    assert first.num_scored + second.num_scored == reference.num_scored
    assert log.num_recalled == first.num_scored


def test_scores_of_another_search_and_a_torn_line_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    plans = [shared_plan((1,)), shared_plan((2,))]
    log = ScoreLog(Worth(), path, "search 1")
    for one in plans:
        log.score(one)
    path.write_text(path.read_text()[:-9])
    scorer = Worth()
    again = ScoreLog(scorer, path, "search 1")
    for one in plans:
        again.score(one)
    assert scorer.num_scored == 1
    other = Worth()
    ScoreLog(other, path, "search 2").score(plans[0])
    assert other.num_scored == 1


@pytest.mark.parametrize(
    ("contributors", "publisher", "count"),
    [((), (1, 2), 2), ((1, 2), (2, 3), 3), ((5,), (3,), 1), ((1,), (), 0), ((), (), 0)],
)
def test_blocks_that_travel(
    contributors: tuple[int, ...], publisher: tuple[int, ...], count: int
) -> None:
    plans = RolePlans(contributors=SyncPlan(contributors), publisher=SyncPlan(publisher))
    assert plans.num_travelling == count
