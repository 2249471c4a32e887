"""Segments are the paper's, and joined they are always the prompt."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.errors import InvalidRequestError
from fedattn.research.tasks.segmentation import Segmentation, segment

UNITS = [[1, 2], [3, 4, 5], [6], [7, 8]]
QUESTION = [9, 10, 11]


@pytest.mark.parametrize(
    ("how", "participants", "spans"),
    [
        ("tok-ag", 3, [[1, 2, 3], [4, 5, 6], [7, 8, 9, 10, 11]]),
        ("sem-ag", 3, [[1, 2], [3, 4, 5], [6, 7, 8, 9, 10, 11]]),
        ("sem-ag", 2, [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]),
        ("tok-ex", 3, [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11]]),
        ("sem-ex", 3, [[1, 2, 3, 4, 5], [6, 7, 8], [9, 10, 11]]),
        ("sem-ex", 4, [[1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]),
    ],
)
def test_segments_of_four_units(how: str, participants: int, spans: list[list[int]]) -> None:
    assert segment(UNITS, QUESTION, participants, Segmentation(how)) == spans


@given(
    units=st.lists(st.lists(st.integers(), min_size=1, max_size=5), min_size=6, max_size=9),
    question=st.lists(st.integers(), min_size=1, max_size=5),
    participants=st.integers(2, 6),
    how=st.sampled_from(Segmentation),
)
def test_joined_segments_are_the_prompt(
    units: list[list[int]], question: list[int], participants: int, how: Segmentation
) -> None:
    spans = segment(units, question, participants, how)
    assert len(spans) == participants
    assert [*chain(*spans)] == [*chain(*units), *question]
    if how in {Segmentation.TOK_EX, Segmentation.SEM_EX}:
        assert spans[-1] == question


@pytest.mark.parametrize(
    ("how", "participants", "message"),
    [
        ("sem-ag", 5, "sem-ag: expected at least 5 units"),
        ("sem-ex", 6, "sem-ex: expected at least 5 units"),
        ("tok-ag", 12, "11 tokens cannot be cut among 12"),
        ("tok-ex", 1, "expected at least 2, got 1"),
    ],
)
def test_too_many_participants_are_refused(how: str, participants: int, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        segment(UNITS, QUESTION, participants, Segmentation(how))
