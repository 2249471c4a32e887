"""Checks that every codec makes of its scalars."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fedattn.core.errors import CorruptFrameError
from fedattn.core.types import FloatArray


def check_range(rows: FloatArray, largest: float, codec: str) -> None:
    """Raise OverflowError if a scalar is NaN or its magnitude above `largest`."""
    if not max(rows.max(initial=0.0), -rows.min(initial=0.0)) <= largest:  # NaN fails too
        raise OverflowError(
            f"KV value outside {codec} (largest {largest:.4g}), or NaN; "
            f"use a wider codec, or check the model"
        )


def require_finite(scalars: npt.NDArray[Any], codec: str) -> None:
    """Raise CorruptFrameError if a scalar that came is NaN or infinite."""
    if not np.isfinite(scalars).all():
        raise CorruptFrameError(
            f"{codec} frame holds NaN or infinity; the sender must check its model"
        )
