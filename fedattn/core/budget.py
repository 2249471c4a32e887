"""Byte budgets: a session goes down step by step until its rows fit.

A publisher says with its request how rows may travel instead of as it asks, from the best quality
to the fewest bytes; its profile has measured that. Each of these is a rung. All contributors stand
on the same rung, the first that fits. One without scores to choose rows by sends all of them, in
the codec of the rung; only below the last rung it sends fewer.

Sizes are those of the cost model: exact for codecs of fixed size, upper bounds for the others. So
what is sent never exceeds the budget.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fedattn.core.compression import Compression
from fedattn.core.costs import MemberBytes, session_bytes
from fedattn.core.errors import InvalidRequestError
from fedattn.core.selection import DEFAULT_SELECTOR, LEARNED
from fedattn.core.spans import SessionLayout
from fedattn.core.types import KvShape

FEWER_ROWS = (0.7, 0.5, 0.3, 0.1, 0.03, 0.01)
"""Keep ratios to go down to where nobody knows which rows matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteBudget:
    """What may travel in one session.

    Attributes:
        kv_bytes: most bytes of all frames that contributors send together; None for no limit.
        link_bytes: most bytes through one participant's link, in each direction; None for none.
    """

    kv_bytes: int | None = None
    link_bytes: int | None = None

    def allows(self, traffic: tuple[MemberBytes, ...]) -> bool:
        """Whether this much may travel."""
        if self.kv_bytes is not None and _total(traffic) > self.kv_bytes:
            return False
        return self.link_bytes is None or _busiest(traffic) <= self.link_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """How rows of all contributors travel.

    Attributes:
        compression: as asked for, or coarser.
        unscored_keep_ratio: share of their rows that contributors without scores send instead.
    """

    compression: Compression
    unscored_keep_ratio: float = 1.0

    def of_member(self, *, can_score: bool, max_keep_ratio: float) -> Compression:
        """How rows of one contributor travel.

        Args:
            can_score: whether it can choose rows by scores.
            max_keep_ratio: most of its rows that it sends.
        """
        kept = self.compression
        if kept.selector == LEARNED and not can_score:
            kept = replace(
                kept,
                selector=DEFAULT_SELECTOR,
                keep_ratio=self.unscored_keep_ratio,
                head_shares=b"",
                least_rows=0,
            )
        return kept.at_most(max_keep_ratio)


def rungs_of(compression: Compression, coarser: Iterable[Compression]) -> tuple[Rung, ...]:
    """What a session goes down, best quality first."""
    every = (compression, *coarser)
    fewer = FEWER_ROWS if every[-1].selector == LEARNED else ()
    return (
        *(Rung(compression=one) for one in every),
        *(Rung(compression=every[-1], unscored_keep_ratio=ratio) for ratio in fewer),
    )


def fit_budget(
    layouts: Iterable[SessionLayout], shape: KvShape, budget: ByteBudget
) -> SessionLayout:
    """The first layout that the budget allows.

    Args:
        layouts: the session on one rung after the other, at least one.
        shape: sizes of the KV rows.
        budget: what may travel.

    Raises:
        InvalidRequestError: not even the last fits; says what would.
    """
    for layout in layouts:
        traffic = session_bytes(layout, shape)
        if budget.allows(traffic):
            return layout
    raise InvalidRequestError(
        f"the byte budget is too small: the rows of {len(layout.contributors)} contributors take "
        f"{_total(traffic)} bytes at least, and {_busiest(traffic)} on the busiest link; allow as "
        f"much, leave codec and keep ratio to the profile, or ask fewer contributors"
    )


def _total(traffic: tuple[MemberBytes, ...]) -> int:
    return sum(member.total_up for member in traffic)


def _busiest(traffic: tuple[MemberBytes, ...]) -> int:
    """Bytes on the busiest link: nearly always the publisher's downlink, which all share."""
    return max(max(member.total_up, member.total_down) for member in traffic)
