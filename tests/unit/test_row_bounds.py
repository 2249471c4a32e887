"""Rows up to a bound pass, longer ones do not, and their sender is named."""

import numpy as np
import pytest

from fedattn.core.codecs import CODECS, Codec
from fedattn.core.errors import CorruptFrameError
from fedattn.core.frame_headers import FrameSpec
from fedattn.core.frames import decode_frame, encode_frame
from fedattn.core.row_bounds import MARGIN, RowBounds
from fedattn.core.types import HeadRows, KvRows, KvShape
from tests.harness.samples import ROTARY, SENDER, WIDE_SPAN

BOUNDS = RowBounds(
    keys=np.array([[1.0, 2.0]], dtype=np.float32),
    values=np.array([[4.0, 4.0]], dtype=np.float32),
    queries=np.array([[1.0, 2.0, 3.0]], dtype=np.float32),
)


def rows(key: float = 0.0, value: float = 0.0) -> HeadRows:
    """A row of head 0 and three of head 1; the scalars of the last."""
    keys, values = np.zeros((2, 4, 4), dtype=np.float32)
    keys[3], values[3] = key, value
    return HeadRows(keys=keys, values=values, positions=np.array([5, 1, 2, 3]), counts=(1, 3))


@pytest.mark.parametrize("sign", [1, -1])
def test_rows_up_to_the_margin_pass_and_longer_ones_do_not(sign: int) -> None:
    inside = sign * MARGIN * 0.999
    BOUNDS.check(rows(key=inside, value=2 * inside), 0, "a")
    with pytest.raises(CorruptFrameError, match=r"rows of a at block 0: keys of norm 2.55, at mos"):
        BOUNDS.check(rows(key=sign * 1.275), 0, "a")
    with pytest.raises(CorruptFrameError, match="values of norm 10, at most 5 are taken"):
        BOUNDS.check(rows(value=sign * 5.0), 0, "a")


@pytest.mark.parametrize("scalar", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_no_number_or_too_large_to_square_is_refused(scalar: float) -> None:
    with pytest.raises(CorruptFrameError, match=r"keys of norm (nan|inf|2e.30), at most 2.5"):
        BOUNDS.check(rows(key=scalar), 0, "a")
    with pytest.raises(CorruptFrameError, match="values of norm"):
        BOUNDS.check(rows(value=scalar), 0, "a")


LARGEST = {"fp32": 1e30, "bf16": 1e30, "fp16": 6e4, "int8": 8e6, "int4": 4e4}
"""Near the largest scalars that a codec carries; entropy codecs take 1e15, before RoPE."""


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_largest_steps_of_every_codec_are_refused(codec: Codec) -> None:
    largest, shape = LARGEST.get(codec.name, 6e14), (2, 2, len(WIDE_SPAN), 2)
    noise = np.random.default_rng(5).uniform(-largest, largest, shape).astype(np.float32)
    sent = KvRows(
        keys=noise[0], values=noise[1], positions=np.arange(WIDE_SPAN.start, WIDE_SPAN.stop)
    )
    frame = encode_frame(HeadRows.of(sent), 0, codec, WIDE_SPAN, ROTARY)
    spec = FrameSpec(
        sender=SENDER,
        shape=KvShape(num_layers=1, num_kv_heads=2, head_dim=2),
        codec=codec,
        span=WIDE_SPAN,
        counts=(len(WIDE_SPAN),) * 2,
    )
    with pytest.raises(CorruptFrameError, match="rows of node-7 at block 0: keys of norm"):
        BOUNDS.check(decode_frame(frame, spec, ROTARY), 0, SENDER)
