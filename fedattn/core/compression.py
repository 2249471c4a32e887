"""What one participant leaves out of its rows, and how it writes the rest."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from fedattn.core.codecs import DEFAULT_CODEC, Codec, codec_by_name
from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import MAX_SEED, check_limits, described, limited
from fedattn.core.selection import (
    DEFAULT_SELECTOR,
    LEARNED,
    MAX_KEEP_ENDS,
    SELECTOR_NAMES,
    check_selector,
)
from fedattn.core.types import HeadCounts, KvShape

MAX_LEAST_ROWS = 1 << 16
FULL_SHARE = 255
"""The byte of a head that keeps all its rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSettings:
    """What nobody leaves to a profile. Each field states meaning and limits."""

    keep_ends: int = limited(
        0, "Rows at each end of a span that are chosen first.", 0, MAX_KEEP_ENDS
    )
    input_keep_ratio: float = limited(
        1.0,
        "Share of a contributor's tokens that are computed at all, drawn at random. What the "
        "others say is lost to everybody, itself included; below 1 answers get worse.",
        0,
        1,
        is_low_excluded=True,
    )
    seed: int = limited(0, "Of the draws of rows and tokens.", 0, MAX_SEED)

    def __post_init__(self) -> None:
        check_limits(self, InvalidRequestError)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSelection(RowSettings):
    """Which rows are computed, and which of them travel. Each field states meaning and limits."""

    keep_ratio: float = limited(
        1.0,
        "Share of the computed rows that travel, of all heads at all sync layers together.",
        0,
        1,
        is_low_excluded=True,
    )
    selector: str = described(
        DEFAULT_SELECTOR,
        f"Which rows travel if not all: {', '.join(SELECTOR_NAMES)}.",
        choices=SELECTOR_NAMES,
    )

    def __post_init__(self) -> None:
        RowSettings.__post_init__(self)
        check_selector(self.selector)


SETTINGS_FIELDS = tuple(entry.name for entry in fields(RowSettings))
SELECTION_FIELDS = tuple(entry.name for entry in fields(RowSelection))


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression(RowSelection):
    """Settings of one participant in one session: its row selection, and a codec for the rest.

    Attributes:
        codec: how rows are written.
        head_shares: for the selector `learned`: share of its rows that each head keeps, a byte each
            (255 for all), heads of block 0 first, L Hkv of them. Else empty: every head keeps
            `keep_ratio` of them.
        least_rows: shares are of so many rows at least, so that short texts keep more of theirs.
    """

    codec: Codec = field(default_factory=lambda: codec_by_name(DEFAULT_CODEC))
    head_shares: bytes = b""
    least_rows: int = 0

    def __post_init__(self) -> None:
        RowSelection.__post_init__(self)
        if not 0 <= self.least_rows <= MAX_LEAST_ROWS or (self.least_rows and not self.head_shares):
            raise InvalidRequestError(
                f"least_rows: expected 0 to {MAX_LEAST_ROWS}, and 0 without shares of heads, got "
                f"{self.least_rows}"
            )
        if bool(self.head_shares) != (self.selector == LEARNED):
            raise InvalidRequestError(
                f"the selector {LEARNED} goes with the shares of heads that a profile of the model "
                f"has, got the selector {self.selector} and {len(self.head_shares)} shares; make a "
                f"profile with fedattn calibrate, or choose another selector"
            )

    def describe(self) -> str:
        """In a few words, for people."""
        return f"{self.codec.name}, {self.keep_ratio:g} of the rows, {self.selector}"

    def check_shape(self, shape: KvShape) -> None:
        """Refuse shares of another model.

        Raises:
            InvalidRequestError: their number is not that of its heads.
        """
        expected = shape.num_layers * shape.num_kv_heads
        if self.head_shares and len(self.head_shares) != expected:
            raise InvalidRequestError(
                f"head_shares: expected one of each of {expected} heads, got "
                f"{len(self.head_shares)}; use a profile of this model"
            )

    @property
    def is_refitted(self) -> bool:
        """Whether rows that travel make up for those that do not (`fedattn.core.refit`)."""
        return self.selector == LEARNED

    def at_most(self, keep_ratio: float) -> "Compression":
        """The same with at most so many rows, every head keeping its part of them.

        Short texts then keep no more than long ones.

        Example: shares 200 100 at keep ratio 0.6, at most 0.3: 100 50.
        """
        if keep_ratio >= 1:
            return self
        factor = min(1.0, keep_ratio / self.keep_ratio)
        shares = bytes(int(share * factor) for share in self.head_shares)
        ratio = min(self.keep_ratio, keep_ratio)
        return replace(self, keep_ratio=ratio, head_shares=shares, least_rows=0)

    def head_counts(self, num_rows: int, layer: int, num_heads: int) -> HeadCounts:
        """Rows of so many computed ones that each head keeps at a layer; one head at least one."""
        if not self.head_shares:
            return (num_kept(num_rows, self.keep_ratio),) * num_heads
        shares = self.head_shares[layer * num_heads : (layer + 1) * num_heads]
        counts = _shared_out(shares, num_rows, self.least_rows)
        if not any(counts):
            counts[0] = min(1, num_rows)
        return tuple(counts)

    def share_of(self, num_rows: int) -> float:
        """Share of so many rows that travel: `keep_ratio`, and more of short texts."""
        plain = sum(_shared_out(self.head_shares, num_rows, 0))
        lifted = sum(_shared_out(self.head_shares, num_rows, self.least_rows))
        return min(1.0, self.keep_ratio * lifted / plain) if plain else self.keep_ratio

    @property
    def selection(self) -> dict[str, Any]:
        """All settings but the codec, the shares and least rows, by name."""
        return {name: getattr(self, name) for name in SELECTION_FIELDS}

    @property
    def plain(self) -> tuple[str | float, ...]:
        """All settings as plain values; equal ones write equal frames of equal rows."""
        return (self.codec.name, self.head_shares.hex(), self.least_rows, *self.selection.values())


def _shared_out(shares: bytes, num_rows: int, least_rows: int) -> list[int]:
    """Rows of each head."""
    base = max(num_rows, least_rows)
    return [min(num_rows, -(-base * share // FULL_SHARE)) for share in shares]


def num_kept(num_rows: int, keep_ratio: float) -> int:
    """Rows that are kept: max(1, floor(ratio * rows)), as in the paper; none of none.

    Example: 5 rows at 0.7 keep 3, at 0.1 keep 1.
    """
    return min(num_rows, max(1, int(keep_ratio * num_rows)))
