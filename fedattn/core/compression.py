"""What one participant leaves out of its rows, and how it writes the rest."""

import math
from dataclasses import dataclass, field

from fedattn.core.codecs import DEFAULT_CODEC, Codec, codec_by_name
from fedattn.core.errors import InvalidRequestError
from fedattn.core.selection import DEFAULT_SELECTOR, MAX_KEEP_ENDS, check_selector

MAX_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """Settings of one participant in one session.

    Attributes:
        codec: how rows are written.
        keep_ratio: share of the computed rows that travel at a sync layer, above 0, at most 1.
        selector: name of the scores that choose them.
        keep_ends: rows at each end of the span that are chosen first.
        input_keep_ratio: share of a contributor's tokens that are computed at all, drawn at
            random; what is dropped is lost to everybody, itself included.
        seed: of all draws.
    """

    codec: Codec = field(default_factory=lambda: codec_by_name(DEFAULT_CODEC))
    keep_ratio: float = 1.0
    selector: str = DEFAULT_SELECTOR
    keep_ends: int = 0
    input_keep_ratio: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_selector(self.selector)
        for name in ("keep_ratio", "input_keep_ratio"):
            ratio = getattr(self, name)
            if not (math.isfinite(ratio) and 0 < ratio <= 1):
                raise InvalidRequestError(
                    f"{name} must be above 0 and at most 1, got {ratio}; 1 keeps everything"
                )
        for name, limit in (("keep_ends", MAX_KEEP_ENDS), ("seed", MAX_SEED)):
            number = getattr(self, name)
            if not 0 <= number <= limit:
                raise InvalidRequestError(f"{name} must be between 0 and {limit}, got {number}")
