"""Valid frames that fuzzing starts from: every codec, all rows and selected ones."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from fedattn.core.codecs import CODECS
from fedattn.core.frames import FrameSpec, encode_frame
from fedattn.core.rotary import Rotary
from fedattn.core.spans import Span
from fedattn.core.types import KvRows, KvShape

SENDER = "node-7"
LAYER = 2
_SHAPES = (
    KvShape(num_layers=4, num_kv_heads=1, head_dim=2),
    KvShape(num_layers=4, num_kv_heads=2, head_dim=5),
)
_SPAN = Span(1000, 1045)
_KEPT = (0, 1, 7, 8, 33, 44)


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
        return 4 * self.rules.shape.values_per_row * self.rules.num_rows


@cache
def all_targets() -> tuple[Target, ...]:
    """Every codec with every shape, with and without a bitmap."""
    return tuple(
        _target(codec.name, shape, kept)
        for codec in CODECS
        for shape in _SHAPES
        for kept in (_KEPT, tuple(range(len(_SPAN))))
    )


def _target(codec_name: str, shape: KvShape, kept: tuple[int, ...]) -> Target:
    codec = next(codec for codec in CODECS if codec.name == codec_name)
    size = (2, shape.num_kv_heads, len(kept), shape.head_dim)
    keys, values = np.random.default_rng(len(kept)).normal(size=size).astype(np.float32)
    rotary = Rotary(inverse_frequencies=np.power(0.1, np.arange(shape.head_dim // 2)))
    rows = KvRows(keys=keys, values=values, positions=np.array(kept) + _SPAN.start)
    return Target(
        name=f"{codec_name}/{shape.num_kv_heads}x{shape.head_dim}/{len(kept)} of {len(_SPAN)}",
        frame=encode_frame(rows, LAYER, codec, _SPAN, rotary),
        rules=FrameSpec(sender=SENDER, shape=shape, codec=codec, span=_SPAN, num_rows=len(kept)),
        rotary=rotary,
    )
