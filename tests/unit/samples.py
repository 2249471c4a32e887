"""Small rows, rules and layouts that several tests start from."""

import numpy as np

from fedattn.core.codecs import codec_by_name
from fedattn.core.frames import FrameRules, encode_frame
from fedattn.core.plans import SyncPlan
from fedattn.core.spans import RolePlans, SessionLayout, Span, build_layout
from fedattn.core.types import KvRows, KvShape

SENDER = "node-7"
SHAPE = KvShape(num_layers=4, num_kv_heads=1, head_dim=2)
SPAN = Span(3, 5)
LAYER = 2


def sample_rules(codec: str = "bf16", *, shape: KvShape = SHAPE, span: Span = SPAN) -> FrameRules:
    """What a receiver accepts from SENDER."""
    return FrameRules(sender=SENDER, shape=shape, codec=codec_by_name(codec), span=span)


def sample_rows(*, shape: KvShape = SHAPE, span: Span = SPAN) -> KvRows:
    """Rows whose scalars have at most 8 significant bits: every codec keeps them exactly."""
    num_scalars = shape.values_per_row * len(span)
    scalars = (np.arange(num_scalars) % 251 - 125).astype(np.float32) / 16
    both = scalars.reshape(2, shape.num_kv_heads, len(span), shape.head_dim)
    positions = np.arange(span.start, span.stop, dtype=np.int64)
    return KvRows(keys=both[0], values=both[1], positions=positions)


def sample_frame(codec: str = "bf16", *, layer: int = LAYER) -> bytes:
    """A frame that `sample_rules` accepts."""
    return encode_frame(sample_rows(), layer, codec_by_name(codec))


def sample_layout(contributors: tuple[int, ...], publisher: tuple[int, ...]) -> SessionLayout:
    """Prefix 1 token, contributors a of 2 and b of 1, publisher p of 2, with these sync layers."""
    return build_layout(
        num_layers=5,
        prefix_len=1,
        contributors=[("a", 2), ("b", 1)],
        publisher=("p", 2),
        plans=RolePlans(contributors=SyncPlan(contributors), publisher=SyncPlan(publisher)),
    )
