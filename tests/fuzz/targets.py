"""Valid frames that fuzzing starts from: every codec, all rows and selected ones."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from fedattn.core.codecs import CODECS, Codec
from fedattn.core.frame_headers import FrameSpec
from fedattn.core.frames import encode_frame
from fedattn.core.rotary import Rotary
from fedattn.core.spans import Span
from fedattn.core.types import HeadRows, KvShape

SENDER = "node-7"
LAYER = 2
_SHAPES = (
    KvShape(num_layers=4, num_kv_heads=1, head_dim=2),
    KvShape(num_layers=4, num_kv_heads=2, head_dim=5),
)
_SPAN = Span(1000, 1045)
_KEPT = (0, 1, 7, 8, 33, 44)
_ALL = tuple(range(len(_SPAN)))
_Heads = tuple[tuple[int, ...], ...]
"""Places in the span of the rows of each head."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Target:
    """A valid frame and the rules it keeps."""

    name: str
    frame: bytes
    rules: FrameSpec
    rotary: Rotary

    @property
    def decoded_size(self) -> int:
        """Bytes of its rows as float32."""
        return 4 * 2 * self.rules.shape.head_dim * self.rules.num_rows


@cache
def all_targets() -> tuple[Target, ...]:
    """Every codec with every shape; bitmaps, biases, and heads with rows of their own or not."""
    return tuple(
        _target(codec, shape, heads)
        for codec in CODECS
        for shape, heads in (
            (_SHAPES[0], (_KEPT,)),
            (_SHAPES[0], (_ALL,)),
            (_SHAPES[1], (_KEPT, ())),  # and biases
            (_SHAPES[1], (_KEPT, _ALL)),
        )
    )


def _target(codec: Codec, shape: KvShape, heads: _Heads) -> Target:
    places = np.array([place for head in heads for place in head])
    size = (2, len(places), shape.head_dim)
    keys, values = np.random.default_rng(len(places)).normal(size=size).astype(np.float32)
    rotary = Rotary(inverse_frequencies=np.power(0.1, np.arange(shape.head_dim // 2)))
    counts = tuple(map(len, heads))
    is_refitted = not all(counts)
    rows = HeadRows(
        keys=keys,
        values=values,
        positions=places + _SPAN.start,
        counts=counts,
        biases=keys[:, 0] if is_refitted else None,
    )
    return Target(
        name=f"{codec.name}/{shape.head_dim}/{' '.join(map(str, counts))} of {len(_SPAN)}",
        frame=encode_frame(rows, LAYER, codec, _SPAN, rotary),
        rules=FrameSpec(
            sender=SENDER,
            shape=shape,
            codec=codec,
            span=_SPAN,
            counts=counts,
            is_refitted=is_refitted,
        ),
        rotary=rotary,
    )
