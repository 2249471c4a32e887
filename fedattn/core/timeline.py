"""What a member of a session did when: one slice a piece of work, by layer."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

MIN_SLICE_S = 1e-5
"""Shorter ones are not worth their bytes."""


class Activity(StrEnum):
    """What a slice was spent on."""

    OPEN = "open"  # publisher: until every contributor had said its length
    COMPUTE = "compute"  # the model, up to the rows of a layer
    ENCODE = "encode"  # selecting and writing own rows
    SEND = "send"  # handing a frame to the network
    WAIT = "wait"  # for rows of others, or for room to send
    DECODE = "decode"  # reading received frames
    GENERATE = "generate"  # publisher: tokens of the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One piece of work.

    Attributes:
        activity: what it was.
        layer: zero-based block it was for.
        begin_s: seconds since the member learned of the session.
        duration_s: seconds.
    """

    activity: Activity
    layer: int
    begin_s: float
    duration_s: float


def max_slices(num_layers: int) -> int:
    """Most slices one member has: a few a layer and direction."""
    return 8 * num_layers + 8


class Timeline:
    """Slices of one member. Any thread may add; `lap` belongs to the model thread.

    Args:
        is_on: whether slices are recorded at all.
        clock: seconds.
    """

    def __init__(self, *, is_on: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_on = is_on
        self._clock = clock
        self._origin = clock()
        self._lap_begun = self._origin
        self._slices: list[Slice] = []

    def now(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._origin

    def lap(self, activity: Activity, layer: int) -> None:
        """All since the last lap was this."""
        begun, self._lap_begun = self._lap_begun, self._clock()
        self.add(activity, layer, begun - self._origin)

    def add(self, activity: Activity, layer: int, begin_s: float) -> None:
        """A slice from `begin_s`, as of `now`, to this moment."""
        duration_s = self.now() - begin_s
        if self._is_on and duration_s >= MIN_SLICE_S:
            piece = Slice(activity=activity, layer=layer, begin_s=begin_s, duration_s=duration_s)
            self._slices.append(piece)

    def slices(self) -> list[Slice]:
        """What was recorded, by begin."""
        return sorted(self._slices, key=lambda piece: piece.begin_s)
