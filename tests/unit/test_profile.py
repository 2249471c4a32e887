"""Profiles survive their file, choose by size, and refuse what they are not made for."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedattn.cli.plans import gateway_plans, read_plans, split_profile
from fedattn.core.errors import InvalidPlanError
from fedattn.core.plans import PlanSpec, RolePlans, SyncPlan, shared_plan
from fedattn.core.profile import Profile, ProfilePoint, read_profile, resolve_plans, write_profile
from fedattn.profiles import load_profile

MODEL = "ab" * 32


def profile() -> Profile:
    uneven = RolePlans(contributors=SyncPlan((2,)), publisher=SyncPlan((2, 3, 5)))
    return Profile(
        fingerprint=MODEL,
        num_layers=6,
        points=(
            ProfilePoint(plans=shared_plan((3,)), divergence=2.0),
            ProfilePoint(plans=uneven, divergence=0.5, exact_match=0.75, nll=1.25),
            ProfilePoint(plans=shared_plan((1, 2, 3, 4, 5)), divergence=0.0),
        ),
        default=1,
        origin={"seed": 0},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "found.json"
    file.write_text(write_profile(profile()))
    return file


def test_profile_survives_its_file(path: Path) -> None:
    assert load_profile(path) == profile()


@pytest.mark.parametrize(
    ("text", "contributors", "publisher"),
    [
        ("auto", (2,), (2, 3, 5)),
        ("auto@1", (3,), (3,)),
        ("auto@2", (3,), (3,)),
        ("auto@4", (2,), (2, 3, 5)),
        ("auto@6", (1, 2, 3, 4, 5), (1, 2, 3, 4, 5)),
        ("all", tuple(range(6)), tuple(range(6))),
        ("1,4", (1, 4), (1, 4)),
    ],
)
def test_auto_is_what_the_profile_says_of_each_role(
    text: str, contributors: tuple[int, ...], publisher: tuple[int, ...]
) -> None:
    plans = resolve_plans(PlanSpec(text), PlanSpec(text), 6, profile())
    assert (plans.contributors.layers, plans.publisher.layers) == (contributors, publisher)


def test_auto_without_a_profile_is_every_block_but_the_first_or_those_in_the_middle() -> None:
    plans = resolve_plans(PlanSpec("auto"), PlanSpec("auto@2"), 6, None)
    assert (plans.contributors.layers, plans.publisher.layers) == ((1, 2, 3, 4, 5), (2, 3))


def test_fewer_blocks_than_the_smallest_point_are_refused(path: Path) -> None:
    larger = Profile(
        fingerprint=MODEL, num_layers=6, points=profile().points[1:], default=0, origin={}
    )
    with pytest.raises(InvalidPlanError, match="smallest plan has 3 sync layers, got auto@2"):
        resolve_plans(PlanSpec("auto@2"), PlanSpec("auto@2"), 6, larger)


def test_file_is_accepted_where_a_plan_is(path: Path) -> None:
    plans = read_plans(str(path), None, 6, MODEL)
    assert plans == profile().points[1].plans
    assert read_plans(f"{path}@1", None, 6, MODEL) == shared_plan((3,))
    mixed = read_plans(str(path), "all", 6, MODEL)
    assert (mixed.contributors.layers, mixed.publisher.layers) == ((2,), tuple(range(6)))
    assert gateway_plans(str(path), None) == ("2", "2-3,5")
    assert gateway_plans("none", f"{path}@1") == ("none", "3")
    assert gateway_plans("uniform:4", None) == ("uniform:4", None)
    assert split_profile("auto@3") == (PlanSpec("auto@3"), None)


def test_profile_of_another_model_is_refused(path: Path) -> None:
    with pytest.raises(InvalidPlanError, match=r"made for the model abababababab, not for cdcd"):
        read_plans(str(path), None, 6, "cd" * 32)


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(write_profile(profile())), **fields})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "Expecting value"),
        ("[]", "list indices"),
        ("[" * 100_000, "recursion"),
        (changed(num_layers=float("inf")), "infinity"),
        (changed(points=[{"contributors": ["7"], "publisher": "7"}]), "'list'"),
        (changed(points=[{"contributors": "7", "publisher": "7", "divergence": 10**400}]), "large"),
        ("{}", "no 'format'"),
        (changed(format="other"), "expected fedattn-profile"),
        (changed(version=99), "99"),
        (changed(points=[]), "points must grow"),
        (changed(points=[{"contributors": "1", "publisher": "1"}]), "no 'divergence'"),
        (changed(points=[{"contributors": "all", "publisher": "1", "divergence": 0}]), "'all'"),
        (changed(points=[{"contributors": "9", "publisher": "9", "divergence": 0}]), "block 9"),
        (changed(default=3), "default must name one of its 3"),
        (changed(default="x"), "invalid literal"),
        (changed(points=7), "not iterable"),
        (
            changed(
                points=[
                    {"contributors": "1", "publisher": "1", "divergence": 0, "nll": "much"},
                ]
            ),
            "nll: expected a number, got 'much'",
        ),
    ],
)
def test_what_is_no_profile_is_refused_with_file_and_remedy(text: str, part: str) -> None:
    with pytest.raises(InvalidPlanError) as caught:
        read_profile(text, "found.json")
    assert "profile found.json cannot be read" in str(caught.value)
    assert "make one with fedattn calibrate" in str(caught.value)
    assert part in str(caught.value)


def test_missing_and_huge_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPlanError, match="cannot be read"):
        load_profile(tmp_path / "none.json")
    huge = tmp_path / "huge.json"
    huge.write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(InvalidPlanError, match="expected at most 1048576 bytes"):
        load_profile(huge)
