"""A variant beside another one, case by case.

Pairs take out what makes one case harder than another, so that few cases say more than two means
do. Cases of one world share their contexts and err together: intervals draw whole worlds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from fedattn.research.evaluate.scores import CaseScore

DRAWS = 2000
_PERCENTILES = (2.5, 97.5)
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean, and where 95 % of the bootstrap's means lie; one world alone has no such range."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A variant minus its baseline over the same cases.

    Attributes:
        cases: pairs.
        worlds: among which these are.
        gained: cases that the variant alone has right.
        lost: cases that the baseline alone has right.
        p_value: exact two-sided McNemar: how likely so uneven a split of those is by chance.
            Takes cases for independent.
        right: difference of the share of right answers.
        nll: difference, nats a token; None if unknown.
        divergence: difference of KL from centralised, nats a token; None if unknown.
    """

    cases: int
    worlds: int
    gained: int
    lost: int
    p_value: float
    right: Interval
    nll: Interval | None
    divergence: Interval | None


def compare(
    scores: Sequence[CaseScore], baseline: Sequence[CaseScore], worlds: Sequence[int]
) -> Comparison:
    """Set a variant beside a baseline.

    Args:
        scores: of the variant, N >= 1 cases.
        baseline: of the same cases, in the same order.
        worlds: of which world each case is, any numbers.
    """
    gained = sum(new.match and not old.match for new, old in zip(scores, baseline, strict=True))
    lost = sum(old.match and not new.match for new, old in zip(scores, baseline, strict=True))
    right = _differences(scores, baseline, worlds, "match")
    if right is None:
        raise ValueError("a comparison needs at least one case")
    return Comparison(
        cases=len(scores),
        worlds=len(set(worlds)),
        gained=gained,
        lost=lost,
        p_value=mcnemar(gained, lost),
        right=right,
        nll=_differences(scores, baseline, worlds, "nll"),
        divergence=_differences(scores, baseline, worlds, "divergence"),
    )


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p: a fair coin falls as unevenly as `gained` to `lost`, or more so."""
    total = gained + lost
    tail = sum(comb(total, few) for few in range(min(gained, lost) + 1))
    return float(min(1.0, 2 * tail / 2**total))


def bootstrap_mean(values: Sequence[float], worlds: Sequence[int]) -> Interval:
    """Mean of N >= 1 values, and its 95 % interval from 2,000 draws of as many worlds.

    Example: values 1 2 6 of worlds 0 0 1 have the mean 3; a draw is two worlds, so its mean is 1.5
    (world 0 twice), 3 or 6.
    """
    mean = float(np.mean(values))
    _, index = np.unique(np.asarray(worlds), return_inverse=True)
    counts = np.bincount(index)
    if len(counts) < 2:
        return Interval(mean=mean, low=None, high=None)
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64))
    rng = np.random.default_rng(_SEED)
    drawn = rng.integers(len(counts), size=(DRAWS, len(counts)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, _PERCENTILES)
    return Interval(mean=mean, low=float(low), high=float(high))


def _differences(
    scores: Sequence[CaseScore], baseline: Sequence[CaseScore], worlds: Sequence[int], name: str
) -> Interval | None:
    """Over the cases in which both know the value; None if there are none."""
    pairs = zip(scores, baseline, worlds, strict=True)
    known = [
        (float(new) - float(old), world)
        for one, other, world in pairs
        if (new := getattr(one, name)) is not None and (old := getattr(other, name)) is not None
    ]
    if not known:
        return None
    values, where = zip(*known, strict=True)
    return bootstrap_mean(values, where)
