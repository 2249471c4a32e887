"""How long the keys and values of a model can be at all: rows beyond that are nobody's.

A block makes its rows of a normalized hidden state, whose length the norm fixes. So no text and
no rows of others bring an honest node above the bounds, and who sends longer rows made them up.
"""

from dataclasses import dataclass

import numpy as np

from fedattn.core.errors import CorruptFrameError
from fedattn.core.types import FloatArray, HeadRows, KvShape

MARGIN = 1.25
"""On top of the bounds, for what codecs and half precision round."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowBounds:
    """Largest L2 norms of the rows of a model.

    Attributes:
        keys: [L, Hkv] float32; turning keys (RoPE) leaves their norm as it is.
        values: [L, Hkv] float32.
    """

    keys: FloatArray
    values: FloatArray

    @classmethod
    def unbounded(cls, shape: KvShape) -> "RowBounds":
        """For a model whose weights cannot be read: all that float32 can square passes."""
        endless = np.full((shape.num_layers, shape.num_kv_heads), np.finfo(np.float32).max)
        return cls(keys=endless, values=endless)

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
