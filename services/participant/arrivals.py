"""What a member is told of the rows that came for it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """The rows of one sender at one layer.

    Attributes:
        node_id: whose rows.
        num_rows: rows that came, of one head in the mean.
        num_bytes: of the frame, header included; 0 if the rows were cached here.
        wait_s: from when they were needed until they were there, seconds; 0 if they were before.
    """

    node_id: str
    num_rows: int
    num_bytes: int
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerArrivals:
    """What came at one layer.

    Attributes:
        layer: zero-based block.
        wait_s: time the model thread waited for all of it, seconds.
        arrivals: by sender in token order; who is left out is absent.
    """

    layer: int
    wait_s: float
    arrivals: tuple[Arrival, ...]

    @property
    def num_rows(self) -> int:
        """Of all senders."""
        return sum(arrival.num_rows for arrival in self.arrivals)


LayerListener = Callable[[LayerArrivals], None]
"""Told after each receive, in the model thread."""
