"""Byte budgets: lower codec, keep ratio and plan until a session's rows fit.

Quality is given up in this order, each step only as far as needed:

    1. the codec, if it may be chosen: the next coarser one
    2. the keep ratio, down to 0.5
    3. sync layers, from both ends of the plans towards their middle, down to one
    4. the keep ratio again, down to 1 % of the rows, at least one

Sizes are those of the cost model: exact for codecs of fixed size, upper bounds for the others. So
what is sent never exceeds the budget.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from fedattn.core.codecs import Codec
from fedattn.core.costs import MemberBytes, session_bytes
from fedattn.core.errors import InvalidRequestError
from fedattn.core.plans import SyncPlan
from fedattn.core.spans import Member, Role, SessionLayout
from fedattn.core.types import KvShape

_GENTLE_PERCENT = 50
_LEAST_PERCENT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteBudget:
    """What may travel in one session.

    Attributes:
        kv_bytes: most bytes of all frames that contributors send together; None for no limit.
        link_bytes: most bytes through one participant's link, in each direction; None for none.
        may_choose_codec: whether the codec may be lowered too.
    """

    kv_bytes: int | None = None
    link_bytes: int | None = None
    may_choose_codec: bool = False

    def allows(self, traffic: tuple[MemberBytes, ...]) -> bool:
        """Whether this much may travel."""
        total = sum(member.total_up for member in traffic)
        if self.kv_bytes is not None and total > self.kv_bytes:
            return False
        links = (max(member.total_up, member.total_down) for member in traffic)
        return self.link_bytes is None or max(links) <= self.link_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rung:
    """One choice of codec and plans, and how few rows may be kept with it."""

    codec: Codec
    num_layers: int
    least_percent: int


def fit_budget(
    layout: SessionLayout, shape: KvShape, budget: ByteBudget, codecs: tuple[Codec, ...]
) -> SessionLayout:
    """The layout with the best quality that the budget allows.

    Every contributor keeps the same share of its rows, and none more than it was asked to. The
    busiest link is nearly always the publisher's downlink, which all contributors share.

    Args:
        layout: the session as wished.
        shape: sizes of the KV rows.
        budget: what may travel.
        codecs: what may be chosen, best quality first, at least one.

    Raises:
        InvalidRequestError: not even 1 % of the rows at one layer fit; says what would.
    """
    smallest = layout
    for rung in _rungs(layout, codecs):
        for percent in (100, rung.least_percent):
            smallest = _apply(layout, rung, percent)
            if budget.allows(session_bytes(smallest, shape)):
                return _largest(layout, shape, budget, rung, low=percent)
    traffic = session_bytes(smallest, shape)
    total = sum(member.total_up for member in traffic)
    link = max(max(member.total_up, member.total_down) for member in traffic)
    raise InvalidRequestError(
        f"the byte budget is too small: {_LEAST_PERCENT} % of the rows of "
        f"{len(layout.contributors)} contributors at one layer take {total} bytes, and {link} "
        f"on the busiest link; allow at least as much, or ask fewer contributors"
    )


def _rungs(layout: SessionLayout, codecs: tuple[Codec, ...]) -> Iterator[_Rung]:
    every = max(len(member.plan.layers) for member in layout.members)
    for codec in codecs[:-1]:
        yield _Rung(codec=codec, num_layers=every, least_percent=100)
    last = codecs[-1]
    for num_layers in range(every, 0, -1):
        yield _Rung(codec=last, num_layers=num_layers, least_percent=_GENTLE_PERCENT)
    yield _Rung(codec=last, num_layers=1, least_percent=_LEAST_PERCENT)


def _largest(
    layout: SessionLayout, shape: KvShape, budget: ByteBudget, rung: _Rung, low: int
) -> SessionLayout:
    """The layout with the most rows that fits, given that `low` percent do."""
    high = 100
    while low < high:
        middle = (low + high + 1) // 2
        tried = _apply(layout, rung, middle)
        if budget.allows(session_bytes(tried, shape)):
            low = middle
        else:
            high = middle - 1
    return _apply(layout, rung, low)


def _apply(layout: SessionLayout, rung: _Rung, percent: int) -> SessionLayout:
    """The layout on this rung, contributors keeping at most `percent` of their rows."""
    every = max(len(member.plan.layers) for member in layout.members)
    members = tuple(
        replace(member, plan=middle_layers(member.plan, rung.num_layers / max(1, every)))
        for member in layout.members
    )
    members = tuple(_compress(member, rung.codec, percent / 100) for member in members)
    return replace(layout, members=members)


def _compress(member: Member, codec: Codec, keep_ratio: float) -> Member:
    if member.role is Role.PUBLISHER:
        return replace(member, compression=replace(member.compression, codec=codec))
    ratio = min(member.compression.keep_ratio, keep_ratio)
    return replace(member, compression=replace(member.compression, codec=codec, keep_ratio=ratio))


def middle_layers(plan: SyncPlan, share: float) -> SyncPlan:
    """The middle of a plan, that share of its layers, rounded up.

    Example: half of 1,2,3,4,5 is 2,3,4.
    """
    count = -int(-len(plan.layers) * share // 1)
    start = (len(plan.layers) - count) // 2
    return SyncPlan(plan.layers[start : start + count])
