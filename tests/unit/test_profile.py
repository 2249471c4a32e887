"""Profiles survive their file, choose by bytes, and refuse what they are not made for."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.errors import InvalidPlanError, InvalidRequestError
from fedattn.core.plans import NOWHERE, PlanSpec, SyncPlan, shared_plan
from fedattn.core.profile import CompressionWish, Profile, ProfilePoint, Resolved, resolve
from fedattn.core.profile_file import MAX_PROFILE_BYTES, read_profile, write_profile
from fedattn.core.types import KvShape
from fedattn.profiles import load_profile
from tests.harness.learned import random_scorer

MODEL = "ab" * 32
SHAPE = KvShape(num_layers=3, num_kv_heads=2, head_dim=4)
HALF = bytes((0, 0, 100, 200, 140, 70))
FIFTH = bytes((0, 0, 40, 90, 60, 14))


def point(keep_ratio: float, codec: str, shares: bytes, fewer_bytes: float) -> ProfilePoint:
    return ProfilePoint(
        keep_ratio=keep_ratio,
        codec=codec,
        head_shares=shares,
        fewer_bytes=fewer_bytes,
        divergence=fewer_bytes / 1000,
        nll_change=-0.01,
    )


def profile() -> Profile:
    return Profile(
        fingerprint=MODEL,
        num_layers=3,
        num_kv_heads=2,
        plans=shared_plan((1, 2)),
        points=(
            point(1.0, "entropy-fine", b"", 5.0),
            point(0.5, "entropy-fine", HALF, 10.0),
            point(0.5, "entropy-medium", HALF, 12.5),
            point(0.2, "entropy-coarse", FIFTH, 30.0),
        ),
        default=1,
        scorer=random_scorer(SHAPE),
        least_rows=7,
        origin={"seed": 0},
        context_tokens=900,
    )


def resolved(plan: str, found: Profile | None = None, **wish: Any) -> Resolved:
    spec = PlanSpec(plan)
    return resolve(spec, spec, 3, found, CompressionWish(**wish))


def test_profile_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(write_profile(profile()))
    found, made = load_profile(path), profile()
    assert replace(found, scorer=None, points=made.points[:1], default=0) == replace(
        made, scorer=None, points=made.points[:1], default=0
    )
    assert found.points == made.points
    assert found.scorer is not None
    assert made.scorer is not None
    np.testing.assert_allclose(found.scorer.weights, made.scorer.weights, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(found.scorer.bias, made.scorer.bias)


@pytest.mark.parametrize(("plan", "index"), [("auto", 1), ("auto@1/4", 0), ("auto@1/11", 2)])
def test_auto_is_the_default_point_or_the_best_that_saves_so_much(plan: str, index: int) -> None:
    found = resolved(plan, profile())
    assert found.plans == shared_plan((1, 2))
    ladder = [(one.keep_ratio, one.codec, one.head_shares) for one in profile().points[index:]]
    chosen = found.coarser if index else (found.compression, *found.coarser)
    assert [(one.keep_ratio, one.codec.name, one.head_shares) for one in chosen] == ladder
    assert found.compression.selector == ("learned" if index else "value-weighted")
    if index:  # a budget first goes down to the same without more of short texts
        assert found.compression == replace(found.coarser[0], least_rows=7)
    assert not any(one.least_rows for one in found.coarser)


@pytest.mark.parametrize(
    ("plan", "asked"),
    [("auto", (2,)), ("auto@1/4", (2,)), ("1", (1,)), ("none", ()), ("all", (0, 1, 2))],
)
def test_the_publishers_plan_says_where_owners_of_rows_are_asked(
    plan: str, asked: tuple[int, ...], tmp_path: Path
) -> None:
    made = profile()
    path = tmp_path / "found.json"
    path.write_text(write_profile(replace(made, plans=replace(made.plans, asked=SyncPlan((2,))))))
    assert resolved(plan, load_profile(path)).plans.asked == SyncPlan(asked)


def test_without_a_measured_plan_owners_of_rows_are_asked_at_every_block_but_the_first(
    tmp_path: Path,
) -> None:
    made = profile()
    path = tmp_path / "found.json"
    path.write_text(write_profile(replace(made, plans=replace(made.plans, asked=NOWHERE))))
    assert "asked" not in json.loads(path.read_text())
    assert resolved("auto", load_profile(path)).plans.asked == SyncPlan((1, 2))
    assert resolved("auto").plans.asked == SyncPlan((1, 2))


def test_a_profile_asks_at_blocks_that_the_model_has() -> None:
    made = profile()
    with pytest.raises(InvalidPlanError, match="names block 3"):
        replace(made, plans=replace(made.plans, asked=SyncPlan((3,))))


def test_more_than_the_smallest_point_saves_is_refused() -> None:
    with pytest.raises(InvalidPlanError, match=r"smallest point sends 1/30 .* got auto@1/31"):
        resolved("auto@1/31", profile())
    with pytest.raises(InvalidPlanError, match="nobody has measured"):
        resolved("auto@1/2")


def test_without_a_profile_every_row_of_every_block_but_the_first_travels() -> None:
    found = resolved("auto")
    assert found.plans == shared_plan((1, 2))
    assert found.compression == Compression(codec=codec_by_name("entropy-finest"))
    assert [one.codec.name for one in found.coarser[:2]] == ["entropy-fine", "entropy-medium"]
    assert [one.keep_ratio for one in found.coarser] == [1, 1, 1, 0.7, 0.5, 0.3, 0.1, 0.03, 0.01]


def test_what_is_asked_for_goes_before_the_profile() -> None:
    settings = Compression(keep_ends=2, seed=5)
    found = resolved("auto", profile(), codec=codec_by_name("int8"), settings=settings)
    assert found.compression.head_shares == HALF
    assert {one.codec.name for one in (found.compression, *found.coarser)} == {"int8"}
    assert (found.compression.keep_ends, found.coarser[-1].seed) == (2, 5)
    other = resolved("auto", profile(), keep_ratio=0.5, selector="recency")
    assert (other.compression.selector, other.compression.head_shares) == ("recency", b"")
    listed = resolved("2", profile())
    assert (listed.plans, listed.compression.keep_ratio) == (shared_plan((2,)), 1.0)
    assert listed.coarser[-1].selector == "learned"


def test_shares_lie_between_those_of_the_points_around() -> None:
    found = resolved("auto", profile(), keep_ratio=0.35).compression
    assert found.head_shares == bytes((0, 0, 70, 145, 100, 42))
    nearly_all = profile().head_shares(0.9)
    assert nearly_all[:2] == b"\0\0"
    assert min(nearly_all[2:]) > 200
    assert profile().head_shares(0.1) == bytes((0, 0, 20, 45, 30, 7))


def test_learned_rows_need_a_profile() -> None:
    with pytest.raises(InvalidRequestError, match="make a profile with fedattn calibrate"):
        resolved("auto", selector="learned", keep_ratio=0.5)


def test_profile_of_another_model_is_refused() -> None:
    with pytest.raises(InvalidPlanError, match=r"made for the model abababababab, not for cdcd"):
        profile().check_model("cd" * 32)


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(write_profile(profile())), **fields})


def with_point(**fields: Any) -> str:
    points = json.loads(write_profile(profile()))["points"]
    return changed(points=[points[0], {**points[1], **fields}])


def with_scores(**fields: Any) -> str:
    return changed(row_scores={**json.loads(write_profile(profile()))["row_scores"], **fields})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "Expecting value"),
        ("[]", "list indices"),
        ("[" * 100_000, "recursion"),
        ("{}", "no 'format'"),
        (changed(format="other"), "expected fedattn-profile"),
        (changed(version=1), "expected fedattn-profile of version 3"),
        (changed(num_layers=float("inf")), "infinity"),
        (changed(publisher=["7"]), "'list'"),
        (changed(publisher="all"), "'all'"),
        (changed(publisher="9"), "block 9"),
        (changed(points=[]), "must save more and more"),
        (changed(points=7), "not iterable"),
        (changed(default=4), "default must name one of its 4"),
        (changed(default="x"), "invalid literal"),
        (changed(context_tokens=0), "expected a whole number from 1"),
        (changed(least_rows=-1), "least_rows: expected a whole number from 0, got -1"),
        (changed(least_rows=1 << 20), "least_rows: expected 0 to 65536"),
        (with_point(fewer_bytes=5.0), "must save more and more"),
        (with_point(fewer_bytes=10**400), "large"),
        (with_point(divergence="much"), "divergence: expected a number, got 'much'"),
        (with_point(codec="zip"), "unknown codec 'zip'"),
        (with_point(keep_ratio=1.5), "keeps above 0 to 1 of the rows"),
        (with_point(head_shares=""), "says of which heads"),
        (with_point(head_shares="AAAA"), "a share of each"),
        (with_point(head_shares="no"), "padding"),
        (with_scores(shape=[3, 2, -16]), "positive sizes"),
        (with_scores(shape=[3, 2, 17]), "cannot reshape"),
        (with_scores(shape=[6, 1, 16]), "has scores of as many"),
        (with_scores(weights="AAAA"), "buffer size"),
        (with_scores(bias="AADAfwAAwH8AAMB/AADAfwAAwH8AAMB/"), "finite"),
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
    huge.write_bytes(b" " * (MAX_PROFILE_BYTES + 1))
    with pytest.raises(InvalidPlanError, match=f"expected at most {MAX_PROFILE_BYTES} bytes"):
        load_profile(huge)
