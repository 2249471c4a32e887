"""What asking costs, and when it is faster than sending rows."""

from dataclasses import replace

import pytest

from fedattn.core.asked import query_codec_by_name
from fedattn.core.asked_costs import Link, asked_bytes, exchange_times
from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.costs import ModelSizes
from fedattn.core.errors import InvalidRequestError
from fedattn.core.plans import NOWHERE, RolePlans, SyncPlan
from fedattn.core.spans import SessionLayout, build_layout
from fedattn.core.types import KvShape

SIZES = ModelSizes(
    kv=KvShape(num_layers=30, num_kv_heads=3, head_dim=64),
    hidden_size=576, num_query_heads=9, intermediate_size=1536, vocab_size=49152,
    weight_bytes=1,
)  # fmt: skip
BLOCKS = SyncPlan(tuple(range(10, 20)))
PLANS = RolePlans(contributors=NOWHERE, publisher=SyncPlan(tuple(range(1, 30))), asked=BLOCKS)
LAN = Link(bytes_per_s=1e9 / 8, round_trip_s=1e-3)
BF16 = query_codec_by_name("bf16")


def layout_of(*lengths: int, asked: bool = False) -> SessionLayout:
    names = [f"node-{index}" for index in range(len(lengths))]
    return build_layout(
        num_layers=30,
        prefix_len=20,
        contributors=list(zip(names, lengths, strict=True)),
        publisher=("publisher", 40),
        plans=PLANS,
        compression=Compression(codec=codec_by_name("bf16")),
        asked=names if asked else (),
    )


def test_a_token_takes_the_bytes_of_its_queries_and_of_each_part() -> None:
    first, second, publisher = asked_bytes(layout_of(100, 50, asked=True), SIZES, BF16, 1)
    queries, part = 32 + 9 * 64 * 2, 32 + 9 * (64 * 2 + 4)
    assert first.up == second.up == dict.fromkeys(BLOCKS.layers, part)
    assert first.down == second.down == dict.fromkeys(BLOCKS.layers, queries)
    assert publisher.up == dict.fromkeys(BLOCKS.layers, queries)
    assert publisher.down == dict.fromkeys(BLOCKS.layers, 2 * part)


def test_bytes_of_asking_do_not_depend_on_the_texts_and_those_of_rows_do() -> None:
    short, long = (
        exchange_times(layout_of(length), PLANS, SIZES, LAN, 32) for length in (200, 2000)
    )
    assert short.asked == long.asked
    assert short.asked_bytes == long.asked_bytes
    assert long.rows > 5 * short.rows


def test_round_trips_are_passes_times_blocks_and_their_time_is_that_of_two_links() -> None:
    fast = exchange_times(layout_of(200), PLANS, SIZES, LAN, 32)
    slow = exchange_times(layout_of(200), PLANS, SIZES, replace(LAN, round_trip_s=21e-3), 32)
    assert fast.round_trips == (18 + 2) * 10  # 32 tokens, 1.85 a pass
    assert slow.asked - fast.asked == pytest.approx(fast.round_trips * 2 * 20e-3)


def test_long_texts_over_a_near_and_thin_link_are_asked_for_and_short_ones_sent() -> None:
    thin = Link(bytes_per_s=20e6 / 8, round_trip_s=0.5e-3)
    long = exchange_times(layout_of(2000, 2000), PLANS, SIZES, thin, 32)
    short = exchange_times(layout_of(40), PLANS, SIZES, thin, 32)
    assert long.asked < long.rows
    assert short.rows < short.asked


@pytest.mark.parametrize(("rate", "trip"), [(0, 0), (-1, 0), (1, -1), (1, 61), (float("nan"), 0)])
def test_links_that_cannot_be_are_refused(rate: float, trip: float) -> None:
    with pytest.raises(InvalidRequestError, match="a link: expected"):
        Link(bytes_per_s=rate, round_trip_s=trip)
