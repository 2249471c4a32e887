"""Plans of the command line: what a profile file means, and where it means nothing."""

from pathlib import Path

import pytest

from fedattn.cli.options import read_wish
from fedattn.cli.plans import check_gateway_plan, choose
from fedattn.core.errors import InvalidPlanError
from fedattn.core.plans import shared_plan
from fedattn.core.profile_file import write_profile
from fedattn.core.types import KvShape
from tests.harness.profiles import profile_of

SHAPE = KvShape(num_layers=4, num_kv_heads=2, head_dim=4)
MODEL = "ab" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "found.json"
    path.write_text(write_profile(profile_of(SHAPE, MODEL)))
    return path


def test_a_profile_file_says_blocks_rows_and_scores(path: Path) -> None:
    found = choose(str(path), None, SHAPE.num_layers, MODEL)
    assert found.plans == shared_plan((1, 2, 3))
    assert (found.compression.codec.name, found.compression.keep_ratio) == ("entropy-medium", 0.5)
    assert found.scorer is not None
    fewer = choose(f"{path}@1/20", None, SHAPE.num_layers, MODEL)
    assert (fewer.compression.codec.name, fewer.compression.keep_ratio) == ("entropy-coarse", 0.2)


def test_what_is_asked_for_goes_before_the_profile(path: Path) -> None:
    wish = read_wish("int8", 0.3)
    found = choose(str(path), None, SHAPE.num_layers, MODEL, wish).compression
    assert (found.codec.name, found.keep_ratio, found.selector) == ("int8", 0.3, "learned")
    other = choose(str(path), None, SHAPE.num_layers, MODEL, read_wish(selector="recency"))
    assert (other.compression.keep_ratio, other.compression.selector) == (1.0, "recency")


def test_the_publishers_plan_says_how_rows_travel(path: Path) -> None:
    found = choose("none", str(path), SHAPE.num_layers, MODEL)
    assert (found.plans.contributors.layers, found.plans.publisher.layers) == ((), (1, 2, 3))
    assert found.compression.selector == "learned"


def test_a_profile_of_another_model_is_refused(path: Path) -> None:
    with pytest.raises(InvalidPlanError, match="was made for the model abababababab"):
        choose(str(path), None, SHAPE.num_layers, "cd" * 32)


@pytest.mark.parametrize("plan", ["found.json", "found.json@1/20"])
def test_a_network_goes_by_its_own_profiles(plan: str) -> None:
    with pytest.raises(InvalidPlanError, match="FEDATTN_PARTICIPANT_PROFILE on every node"):
        check_gateway_plan(plan)
    check_gateway_plan("auto@1/20")
