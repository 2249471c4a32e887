"""What others made of queries, recalled for queries like those."""

import numpy as np
import pytest

from fedattn.core.asked import UNSEEN, PartialAttention
from fedattn.core.types import FloatArray
from fedattn.model.recalled import Recollection

HEADS, SIZE = 2, 4


def queries(num_tokens: int, seed: int = 0) -> FloatArray:
    drawn = np.random.default_rng(seed).standard_normal((HEADS, num_tokens, SIZE))
    return drawn.astype(np.float32)


def part_of(asked: FloatArray, seed: int) -> PartialAttention:
    """What an owner of three rows makes of queries."""
    rows = np.random.default_rng(seed).standard_normal((3, SIZE)).astype(np.float32)
    scores = asked @ rows.T
    lse = np.logaddexp.reduce(scores, axis=-1)
    return PartialAttention(output=np.exp(scores - lse[..., None]) @ rows, lse=lse)


def test_the_same_queries_get_the_same_answer_again() -> None:
    asked, recollection = queries(5), Recollection()
    part = part_of(asked, 1)
    recollection.add(asked, [part])
    again = recollection.like(asked[:, 2:4])
    np.testing.assert_allclose(again.output, part.output[:, 2:4], rtol=1e-6)
    np.testing.assert_allclose(again.lse, part.lse[:, 2:4], rtol=1e-6)


def test_every_head_takes_the_nearest_of_its_own_queries() -> None:
    asked, recollection = np.zeros((HEADS, 2, SIZE), np.float32), Recollection()
    asked[0, 0], asked[1, 1] = 1.0, 1.0
    part = part_of(asked, 1)
    recollection.add(asked, [part])
    near = recollection.like(np.full((HEADS, 1, SIZE), 0.9, np.float32))
    np.testing.assert_allclose(near.output[:, 0], [part.output[0, 0], part.output[1, 1]])


def test_parts_of_several_owners_are_one() -> None:
    asked, recollection = queries(3), Recollection()
    parts = [part_of(asked, 1), part_of(asked, 2)]
    unseen = PartialAttention(
        output=np.zeros_like(parts[0].output), lse=np.full_like(parts[0].lse, UNSEEN)
    )
    recollection.add(asked, [*parts, unseen])
    one = recollection.like(asked)
    weights = np.stack([np.exp(part.lse)[..., None] for part in parts])
    outputs = np.stack([part.output for part in parts])
    expected = (weights * outputs).sum(axis=0) / weights.sum(axis=0)
    np.testing.assert_allclose(one.output, expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(one.lse), weights.sum(axis=0)[..., 0], rtol=1e-5)


@pytest.mark.parametrize("at_once", [1, 50, 100])
def test_only_the_newest_tokens_are_kept(at_once: int) -> None:
    asked, recollection = queries(100), Recollection()
    part = part_of(asked, 1)
    for start in range(0, 100, at_once):
        here = slice(start, start + at_once)
        piece = PartialAttention(output=part.output[:, here], lse=part.lse[:, here])
        recollection.add(asked[:, here], [piece])
    np.testing.assert_allclose(recollection.like(asked).lse[:, 36:], part.lse[:, 36:], rtol=1e-6)
    assert not np.isclose(recollection.like(asked).lse[:, :36], part.lse[:, :36]).any()
