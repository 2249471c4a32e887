"""A profile of a tiny model, as calibration would write it."""

from fedattn.core.plans import shared_plan
from fedattn.core.profile import Profile, ProfilePoint
from fedattn.core.types import KvShape
from tests.harness.learned import random_scorer


def profile_of(shape: KvShape, fingerprint: str = "ab" * 32) -> Profile:
    """All rows; half of them, which is `auto`; a fifth of them. Block 0 sends none."""

    def shares(keep_ratio: float) -> bytes:
        one = bytes([int(255 * keep_ratio)])
        rest = (shape.num_layers - 1) * shape.num_kv_heads
        return bytes(shape.num_kv_heads) + one * rest

    points = (
        ProfilePoint(
            keep_ratio=1.0, codec="entropy-fine", head_shares=b"", fewer_bytes=4, divergence=0.01
        ),
        ProfilePoint(
            keep_ratio=0.5,
            codec="entropy-medium",
            head_shares=shares(0.5),
            fewer_bytes=10,
            divergence=0.02,
        ),
        ProfilePoint(
            keep_ratio=0.2,
            codec="entropy-coarse",
            head_shares=shares(0.2),
            fewer_bytes=30,
            divergence=0.1,
        ),
    )
    return Profile(
        fingerprint=fingerprint,
        num_layers=shape.num_layers,
        num_kv_heads=shape.num_kv_heads,
        plans=shared_plan(range(1, shape.num_layers)),
        points=points,
        default=1,
        scorer=random_scorer(shape),
    )
