"""Named schedules give the paper's layer lists, and always K sorted layers of the model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.errors import InvalidPlanError
from fedattn.core.plans import PlanSpec
from fedattn.core.schedules import SCHEDULES

PAPER: dict[tuple[int, int], dict[str, tuple[int, ...]]] = {
    (24, 8): {
        "uniform": (0, 8, 16),
        "shallow-half": (0, 4, 8),
        "deep-half": (15, 19, 23),
        "progressive": (0, 8, 23),
        "regressive": (0, 15, 23),
    },
    (28, 8): {
        "uniform": (0, 8, 16, 24),
        "shallow-half": (0, 3, 7, 10),
        "deep-half": (17, 20, 24, 27),
        "progressive": (0, 4, 14, 27),
        "regressive": (0, 14, 22, 27),
    },
    (36, 9): {
        "uniform": (0, 9, 18, 27),
        "shallow-half": (0, 4, 9, 13),
        "deep-half": (22, 26, 31, 35),
        "progressive": (0, 6, 18, 35),
        "regressive": (0, 18, 29, 35),
    },
}
CASES = [
    (blocks, interval, name, layers)
    for (blocks, interval), schedules in PAPER.items()
    for name, layers in schedules.items()
]


@pytest.mark.parametrize(("blocks", "interval", "name", "layers"), CASES)
def test_schedule_gives_the_layers_the_paper_lists(
    blocks: int, interval: int, name: str, layers: tuple[int, ...]
) -> None:
    assert PlanSpec(f"{name}:{interval}").resolve(blocks).layers == layers


@pytest.mark.parametrize(("blocks", "layers"), [(24, range(6, 18)), (30, range(8, 23))])
def test_half_of_the_blocks_around_the_middle(blocks: int, layers: range) -> None:
    assert PlanSpec(f"middle@{blocks // 2}").resolve(blocks).layers == tuple(layers)


@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    num_layers=st.integers(1, 80),
    count=st.integers(1, 80),
)
def test_schedule_gives_as_many_sorted_layers_as_asked_or_says_that_it_cannot(
    name: str, num_layers: int, count: int
) -> None:
    try:
        layers = PlanSpec(f"{name}@{count}").resolve(num_layers).layers
    except InvalidPlanError as error:
        refusal = str(error)
        layers = None
    assert "use fewer" in refusal if layers is None else len(layers) == min(count, num_layers)
