"""Points between quality and bytes: which are measured, which are worth keeping, which is taken."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedattn.core.profile import ProfilePoint
from fedattn.research.calibrate.measuring import Effect

MAX_DIVERGENCE = 0.025
"""Nats a token that `auto` may lose, at any length."""
LEAST_ROWS = 200
"""Shares of heads are of so many rows at least: of a short text each row matters more."""
LADDER: tuple[tuple[float, str], ...] = (
    (1.0, "entropy-finest"),
    (0.7, "entropy-finest"),
    (0.5, "entropy-finest"),
    (0.5, "entropy-fine"),
    (0.4, "entropy-fine"),
    (0.3, "entropy-fine"),
    (0.25, "entropy-fine"),
    (0.2, "entropy-fine"),
    (0.2, "entropy-medium"),
    (0.15, "entropy-fine"),
    (0.15, "entropy-medium"),
    (0.1, "entropy-medium"),
    (0.1, "entropy-coarse"),
    (0.05, "entropy-coarse"),
)
"""Keep ratio and codec of what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPoint:
    """One step of the ladder.

    Attributes:
        point: as a profile holds it.
        effects: by length of a context, tokens.
    """

    point: ProfilePoint
    effects: Mapping[int, Effect]

    @property
    def keeps_answers(self) -> bool:
        """Whether it loses little enough at every length."""
        return all(one.divergence <= MAX_DIVERGENCE for one in self.effects.values())


def summarize(
    keep_ratio: float, codec: str, shares: bytes, effects: Mapping[int, Effect]
) -> MeasuredPoint:
    """A point, for which every length counts the same; bytes are those of all but short texts."""
    mean = Effect.mean(list(effects.values()))
    long = [length for length in effects if length >= LEAST_ROWS] or list(effects)
    bytes_share = sum(length * effects[length].bytes_share for length in long) / sum(long)
    point = ProfilePoint(
        keep_ratio=keep_ratio,
        codec=codec,
        head_shares=shares,
        fewer_bytes=round(1 / bytes_share, 2),
        divergence=mean.divergence,
        nll_change=mean.nll_change,
    )
    return MeasuredPoint(point=point, effects=effects)


def frontier(measured: Sequence[MeasuredPoint]) -> list[MeasuredPoint]:
    """Those than which no other is both nearer and smaller, from the best quality on."""
    kept: list[MeasuredPoint] = []
    for one in sorted(measured, key=lambda one: (-one.point.fewer_bytes, one.point.divergence)):
        if not kept or one.point.divergence < kept[-1].point.divergence:
            kept.append(one)
    return kept[::-1]


def default_index(points: Sequence[MeasuredPoint]) -> int:
    """The point of the fewest bytes that keeps the answers; the first if none does."""
    kept = [index for index, one in enumerate(points) if one.keeps_answers]
    return max(kept, default=0)
