"""How long keys, values and queries of a model can be at all: what is longer is nobody's.

A block makes its rows of a normalized hidden state, whose length the norm fixes. So no text and
no rows of others bring an honest node above the bounds, and who sends longer rows made them up.
"""

from dataclasses import dataclass

import numpy as np

from fedattn.core.errors import CorruptFrameError
from fedattn.core.types import FloatArray, HeadRows

MARGIN = 1.25
"""On top of the bounds, for what codecs and half precision round."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowBounds:
    """Largest L2 norms of the rows of a model.

    Attributes:
        keys: [L, Hkv] float32; turning keys (RoPE) leaves their norm as it is.
        values: [L, Hkv] float32.
        queries: [L, Hq] float32, scaled.
    """

    keys: FloatArray
    values: FloatArray
    queries: FloatArray

    def check_queries(self, queries: FloatArray, layer: int, sender: str) -> None:
        """Refuse queries that the model cannot have made.

        Args:
            queries: [Hq, T, D] float32 of that layer, scaled.
            layer: zero-based.
            sender: whose queries these are, for the message.

        Raises:
            CorruptFrameError: one is longer than MARGIN times its bound, or not finite.
        """
        limits = self.queries[layer].astype(np.float64)[:, None] * MARGIN  # [Hq, 1]
        lengths = np.linalg.norm(queries.astype(np.float64), axis=-1)  # [Hq, T]; NaN stays NaN
        if not (lengths <= limits).all():
            head, token = np.unravel_index(np.argmax(lengths / limits), lengths.shape)
            raise CorruptFrameError(
                f"queries of {sender} at block {layer}: head {head} of norm "
                f"{lengths[head, token]:.4g}, at most {limits[head, 0]:.4g} is taken; no text "
                f"makes such queries of this model"
            )

    def check(self, rows: HeadRows, layer: int, sender: str) -> None:
        """Refuse rows that the model cannot have made.

        Args:
            rows: at least one, of that layer.
            layer: zero-based.
            sender: whose rows these are, for the message.

        Raises:
            CorruptFrameError: one is longer than MARGIN times its bound, or not finite.
        """
        for what, one, bounds in (
            ("keys", rows.keys, self.keys[layer]),
            ("values", rows.values, self.values[layer]),
        ):
            limits = np.repeat(bounds.astype(np.float64) * MARGIN, rows.counts)  # [N]
            with np.errstate(over="ignore", invalid="ignore"):
                squares = np.einsum("nd,nd->n", one, one)  # NaN stays NaN
            if not (squares <= limits**2).all():
                raise CorruptFrameError(_complaint(what, one, limits, f"{sender} at block {layer}"))


def _complaint(what: str, rows: FloatArray, limits: FloatArray, where: str) -> str:
    """Names the longest row against its bound."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=-1)  # [N]
    longest = int(np.argmax(lengths / limits))  # NaN counts as largest
    return (
        f"rows of {where}: {what} of norm {lengths[longest]:.4g}, at most {limits[longest]:.4g} "
        f"are taken; no text makes such rows of this model"
    )
