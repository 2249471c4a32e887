"""Places that a greedy publisher, or one of its subjects, cannot take from others."""

import pytest

from fedattn.core.errors import NodeBusyError, RateLimitedError
from fedattn.core.fair_places import FairPlaces, Place


def taken_alone(places: FairPlaces, publisher: str, subject: str = "") -> list[Place]:
    """As many as it gets."""
    held: list[Place] = []
    while True:
        try:
            held.append(places.take(publisher, subject))
        except (NodeBusyError, RateLimitedError):
            return held


@pytest.mark.parametrize(
    ("most", "shares"),
    [(1, [1, 0]), (2, [1, 1, 0]), (3, [1, 1, 1, 0]), (4, [2, 1, 1, 0]), (8, [4, 2, 1, 1, 0])],
)
def test_whoever_comes_later_finds_a_place_before_all_are_gone(
    most: int, shares: list[int]
) -> None:
    places = FairPlaces("here", most)
    assert [len(taken_alone(places, f"publisher-{i}")) for i in range(len(shares))] == shares
    assert places.taken == most


def test_refusal_says_who_holds_what_and_what_to_do() -> None:
    places = FairPlaces("here", 4)
    taken_alone(places, "greedy")
    with pytest.raises(
        RateLimitedError,
        match=r"greedy holds 2 of the 4 places .* of here.* its sessions has ended",
    ):
        places.take("greedy")
    taken_alone(places, "a")
    taken_alone(places, "b")
    with pytest.raises(NodeBusyError, match=r"all 4 places .* are taken; try again later"):
        places.take("c")


def test_one_subject_leaves_half_to_the_others_of_its_publisher() -> None:
    places = FairPlaces("here", 8)
    assert len(taken_alone(places, "desk", "greedy")) == 2
    with pytest.raises(RateLimitedError, match="greedy of desk holds 2 of the 8 places"):
        places.take("desk", "greedy")
    assert len(taken_alone(places, "desk", "honest")) == 2


def test_owner_of_the_places_may_hold_all_but_none_of_its_subjects() -> None:
    places = FairPlaces("desk", 8)
    assert len(taken_alone(places, "desk", "one")) == 2
    assert len(taken_alone(places, "desk")) == 6


def test_one_subject_leaves_half_of_a_lower_limit_too() -> None:
    places = FairPlaces("here", 64, most_each=4)
    assert len(taken_alone(places, "desk", "greedy")) == 2


def test_place_is_given_back_once() -> None:
    places = FairPlaces("here", 2)
    first, second = places.take("a", "x"), places.take("b")
    first.release()
    first.release()
    assert places.taken == 1
    with second, places.take("a", "x"):
        assert places.taken == 2
    assert places.taken == 0
