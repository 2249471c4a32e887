"""Hypothesis strategies for plans, compression, layouts and rows."""

import numpy as np
from hypothesis import strategies as st

from fedattn.core.codecs import CODECS
from fedattn.core.compression import Compression
from fedattn.core.limits import MAX_SEED
from fedattn.core.plans import SyncPlan
from fedattn.core.selection import LEARNED, MAX_KEEP_ENDS, SELECTORS
from fedattn.core.spans import Member, Role, SessionLayout, Span
from fedattn.core.types import FloatArray, HeadCounts

RATIOS = st.floats(0, 1, exclude_min=True)
KINDS = ("normal", "constant rows", "constant head", "zeros", "outlier row", "outlier scalar",
         "subnormal", "channel offsets", "signs", "heavy tails")  # fmt: skip


def layer_tuples(num_layers: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Sorted, unique layers below `num_layers`."""
    layers = st.frozensets(st.integers(0, num_layers - 1), max_size=num_layers)
    return layers.map(lambda chosen: tuple(sorted(chosen)))


def compressions(num_heads: int = 0) -> st.SearchStrategy[Compression]:
    """Any settings of a participant; with shares of heads, if it is said how many there are."""
    shares = st.binary(min_size=num_heads, max_size=num_heads)
    return st.builds(
        lambda shares, selector, **settings: Compression(
            selector=LEARNED if shares else selector, head_shares=shares, **settings
        ),
        shares=st.just(b"") | shares,
        selector=st.sampled_from(tuple(SELECTORS)),
        codec=st.sampled_from(CODECS),
        keep_ratio=RATIOS,
        keep_ends=st.integers(0, MAX_KEEP_ENDS),
        input_keep_ratio=RATIOS,
        seed=st.integers(0, MAX_SEED),
    )


@st.composite
def layouts(
    draw: st.DrawFn,
    *,
    min_members: int = 1,
    max_span: int = 2,
    compression: st.SearchStrategy[Compression] | None = None,
    shifted: bool = False,
) -> SessionLayout:
    """Sessions of up to 5 members and layers, each member with its own plan, some spans empty.

    Args:
        min_members: fewest members.
        max_span: most tokens of one.
        compression: of each member; None for the defaults.
        shifted: whether contributors that attend to nobody may compute behind their span.
    """
    num_layers = draw(st.integers(1, 5))
    prefix_len = draw(st.integers(0, 2))
    lengths = draw(st.lists(st.integers(0, max_span), min_size=min_members, max_size=5))
    members: list[Member] = []
    start = prefix_len
    for index, length in enumerate(lengths):
        is_last = index == len(lengths) - 1
        plan = SyncPlan(draw(layer_tuples(num_layers)))
        may_shift = shifted and not is_last and not plan.layers
        members.append(
            Member(
                node_id=f"n{index}",
                role=Role.PUBLISHER if is_last else Role.CONTRIBUTOR,
                span=Span(start, start + length),
                plan=plan,
                position_offset=draw(st.integers(0, start - prefix_len)) if may_shift else 0,
                compression=Compression() if compression is None else draw(compression),
            )
        )
        start += length
    return SessionLayout(num_layers=num_layers, prefix_len=prefix_len, members=tuple(members))


@st.composite
def kv_scalars(draw: st.DrawFn, *, largest: float, smallest: float = 1e-20) -> FloatArray:
    """K and V stacked, [2, Hkv, T, D] float32: 1 to 4 heads, 1 to 70 rows, head sizes 1 to 64.

    Their scale is between `smallest` and `largest`; nothing is larger than that.
    """
    shape = (2, draw(st.integers(1, 4)), draw(st.integers(1, 70)), draw(st.integers(1, 64)))
    exponent = draw(st.floats(np.log10(smallest), np.log10(largest)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    both = random.normal(size=shape)
    match draw(st.sampled_from(KINDS)):
        case "constant rows":
            both[:] = both[:, :, :1]
        case "constant head":
            both[:] = both[:, :, :1, :1]
        case "zeros":
            both[:] = 0
        case "outlier row":
            both[:, :, shape[2] // 2] *= 1e6
        case "outlier scalar":
            both[:] = 0
            both[:, 0, -1, 0] = 1
        case "subnormal":
            both *= 1e-40 / 10**exponent
        case "channel offsets":
            both = both * 10 ** random.uniform(-8, 0) + random.normal(size=shape)[:, :, :1]
        case "signs":
            both = np.sign(both)
        case "heavy tails":
            both = random.standard_cauchy(size=shape)
    return np.clip(both * 10**exponent, -largest, largest).astype(np.float32)


@st.composite
def head_rows(
    draw: st.DrawFn, *, largest: float, smallest: float = 1e-20
) -> tuple[FloatArray, HeadCounts]:
    """K and V stacked, [2, N, D] float32, as `kv_scalars`; heads have as many rows or fewer."""
    both = draw(kv_scalars(largest=largest, smallest=smallest))
    heads, num_rows = both.shape[1:3]
    fewer = st.lists(st.integers(0, num_rows), min_size=heads, max_size=heads).filter(any)
    counts = tuple(draw(st.just([num_rows] * heads) | fewer))
    kept = [both[:, head, :count] for head, count in enumerate(counts)]
    return np.concatenate(kept, axis=1), counts
