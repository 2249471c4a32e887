"""What one participant leaves out of its rows, and how it writes the rest."""

from dataclasses import dataclass, field, fields
from typing import Any

from fedattn.core.codecs import DEFAULT_CODEC, Codec, codec_by_name
from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import MAX_SEED, check_limits, described, limited
from fedattn.core.selection import DEFAULT_SELECTOR, MAX_KEEP_ENDS, SELECTOR_NAMES, check_selector


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSelection:
    """Which rows are computed, and which of them travel. Each field states meaning and limits."""

    keep_ratio: float = limited(
        1.0, "Share of the computed rows that travel at a sync layer.", 0, 1, is_low_excluded=True
    )
    selector: str = described(
        DEFAULT_SELECTOR,
        f"Which rows travel if not all: {', '.join(SELECTOR_NAMES)}.",
        choices=SELECTOR_NAMES,
    )
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
        check_selector(self.selector)
        check_limits(self, InvalidRequestError)


SELECTION_FIELDS = tuple(entry.name for entry in fields(RowSelection))


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression(RowSelection):
    """Settings of one participant in one session: its row selection, and a codec for the rest."""

    codec: Codec = field(default_factory=lambda: codec_by_name(DEFAULT_CODEC))

    @property
    def selection(self) -> dict[str, Any]:
        """All settings but the codec, by name."""
        return {name: getattr(self, name) for name in SELECTION_FIELDS}

    @property
    def plain(self) -> tuple[str | float, ...]:
        """All settings as plain values; equal ones write equal frames of equal rows."""
        return (self.codec.name, *self.selection.values())


def num_kept(num_rows: int, keep_ratio: float) -> int:
    """Rows that are kept: max(1, floor(ratio * rows)), as in the paper; none of none.

    Example: 5 rows at 0.7 keep 3, at 0.1 keep 1.
    """
    return min(num_rows, max(1, int(keep_ratio * num_rows)))
