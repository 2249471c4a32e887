"""How long keys, values and queries of a model can be at all: what is longer is nobody's.

A block makes its rows of a normalized hidden state, whose length the norm fixes. So no text and
no rows of others bring an honest node above the bounds, and who sends longer rows made them up.
"""

from dataclasses import dataclass

import numpy as np

from fedattn.core.asked import PartialAttention
from fedattn.core.errors import CorruptFrameError
from fedattn.core.types import FloatArray, HeadRows

MARGIN = 1.25
"""On top of the bounds, for what codecs and half precision round."""
_NOISE_SHARE, _NOISE_NATS = 2.0, 4.0
"""Room for an owner's noise: on outputs, as a factor, and on lse."""


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

    def check_part(
        self, part: PartialAttention, lengths: FloatArray, layer: int, num_rows: int, sender: str
    ) -> None:
        """Refuse what attention over rows of the model cannot have made of queries.

        An output is a mean of values; lse is at most the logarithm of so many rows and the score of
        the longest key. Both are given room for noise of an owner.

        Args:
            part: of one member.
            lengths: [Hq, T] float32, norms of the queries, scaled.
            layer: zero-based.
            num_rows: of the member, at least 1.
            sender: whose part it is, for the message.

        Raises:
            CorruptFrameError: a number is beyond that, or not finite.
        """
        heads = len(lengths) // self.keys.shape[1]
        values = np.repeat(self.values[layer], heads).astype(np.float64)[:, None]
        keys = np.repeat(self.keys[layer], heads).astype(np.float64)[:, None]
        sizes = np.linalg.norm(part.output.astype(np.float64), axis=-1)
        most_lse = np.log(num_rows) + lengths * keys * MARGIN + _NOISE_NATS
        is_good = (sizes <= values * MARGIN * _NOISE_SHARE).all() and (part.lse <= most_lse).all()
        if not is_good:
            raise CorruptFrameError(
                f"a part of {sender} at block {layer}: an output of norm {sizes.max():.4g} or an "
                f"lse of {part.lse.max():.4g} is more than rows of this model can make"
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
