"""Whose texts take part when not all fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.token_budget import node_tokens, take_best

TEXTS = [(100, 0.2), (200, 0.9), (100, 0.5)]


@pytest.mark.parametrize(
    ("most", "taken"),
    [
        (None, {0, 1, 2}),
        (400, {0, 1, 2}),
        (300, {1, 2}),
        (250, {1}),
        (199, {2}),  # the best does not fit: another does
        (50, set()),
    ],
)
def test_the_best_are_taken_while_they_fit(most: int | None, taken: set[int]) -> None:
    assert take_best(TEXTS, most) == taken


def test_equal_ones_are_taken_in_their_order() -> None:
    assert take_best([(10, 0.0), (10, 0.0), (10, 0.0)], 20) == {0, 1}


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1)), max_size=20), st.integers(1, 2000))
def test_no_more_than_allowed_is_taken_and_nothing_better_is_left_that_would_fit(
    texts: list[tuple[int, float]], most: int
) -> None:
    taken = take_best(texts, most)
    used = sum(texts[place][0] for place in taken)
    assert used <= most
    some_fit = any(fit for _, fit in texts)
    for place, (size, fit) in enumerate(texts):
        assert place in taken or used + size > most or (some_fit and not fit)


def test_what_does_not_fit_stays_out_once_something_does() -> None:
    texts = [(100, 0.0), (50, 0.4), (10, 0.0)]
    assert take_best(texts, None) == {1}
    assert take_best(texts, 200, certain={0}) == {0, 1}
    assert take_best([(100, 0.0), (10, 0.0)], None, certain={0}) == {0, 1}


@pytest.mark.parametrize(
    ("num_nodes", "knows", "least", "expected"),
    [
        (2, True, 1, 300),
        (3, True, 1, 200),
        (9, True, 1, 200),
        (9, False, 1, 128),
        (3, False, 1, 200),
        (9, True, 5, 120),
    ],
)
def test_a_node_may_fill_a_third_where_it_knows_what_is_asked(
    num_nodes: int, knows: bool, least: int, expected: int
) -> None:
    assert node_tokens(600, num_nodes, knows_question=knows, least_nodes=least) == expected
