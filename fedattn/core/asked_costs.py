"""What asking costs against sending rows: bytes, round trips, and time over a link.

A pass of T tokens sends one piece of queries a block to everybody who is asked, and each of them
sends one part back. An answer takes a pass for the question, one for every few tokens, since some
are drafted, and one to find its sources. Every block of a pass waits for the way there and back:
publisher, aggregator, contributor, which are two round trips of a link.

    rows     most bytes of one link / rate + 2 round trips
    asked    most bytes of one link / rate + passes * blocks * 2 round trips

Computing is left out: it is nearly the same in both.
"""

import math
from dataclasses import dataclass, replace

from fedattn.core.asked import (
    DEFAULT_QUERY_CODEC,
    PieceHeader,
    PieceKind,
    piece_size,
    query_codec_by_name,
    tokens_a_piece,
)
from fedattn.core.codecs import VectorCodec
from fedattn.core.costs import MemberBytes, ModelSizes, session_bytes
from fedattn.core.errors import InvalidRequestError
from fedattn.core.plans import NOWHERE, RolePlans
from fedattn.core.routing import route_session
from fedattn.core.spans import SessionLayout

TOKENS_A_PASS = 1.85
"""Tokens of an answer that one pass yields, as measured (docs/plans.md)."""
_HOPS = 2
MAX_LINK_RATE, MAX_ROUND_TRIP_S = 1.25e11, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Of every node to the aggregator.

    Attributes:
        bytes_per_s: its rate, in either direction.
        round_trip_s: of one small message there and back, seconds.
    """

    bytes_per_s: float
    round_trip_s: float

    def __post_init__(self) -> None:
        is_rate = 0 < self.bytes_per_s <= MAX_LINK_RATE
        if not (is_rate and 0 <= self.round_trip_s <= MAX_ROUND_TRIP_S):
            raise InvalidRequestError(
                f"a link: expected above 0 bytes a second, up to {MAX_LINK_RATE:g}, and 0 to "
                f"{MAX_ROUND_TRIP_S:g} s for a round trip; got {self.bytes_per_s:g} and "
                f"{self.round_trip_s:g}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeTimes:
    """Seconds that the exchange adds to an answer, without computing.

    Attributes:
        rows: if contributors send their rows.
        asked: if the rows stay with them.
        round_trips: pieces of queries, if they do.
        asked_bytes: of queries and parts, each counted once.
    """

    rows: float
    asked: float
    round_trips: int
    asked_bytes: int


def asked_bytes(
    layout: SessionLayout, sizes: ModelSizes, codec: VectorCodec, num_tokens: int
) -> tuple[MemberBytes, ...]:
    """Bytes of the pieces of one pass, by participant and layer; exact.

    Args:
        layout: the session.
        sizes: of the model.
        codec: of queries and parts.
        num_tokens: T, tokens of the pass.
    """
    queries = _size_of(PieceKind.QUERIES, layout, sizes, codec, num_tokens)
    parts = _size_of(PieceKind.PART, layout, sizes, codec, num_tokens)
    traffic = []
    for member, route in zip(layout.members, route_session(layout), strict=True):
        up = dict.fromkeys(sorted(route.asks), queries) | dict.fromkeys(
            sorted(route.answers), parts
        )
        down = dict.fromkeys(sorted(route.asks), len(route.asked) * parts)
        down |= dict.fromkeys(sorted(route.answers), queries)
        traffic.append(MemberBytes(node_id=member.node_id, up=up, down=down))
    return tuple(traffic)


def exchange_times(  # noqa: PLR0917 - spelt out
    layout: SessionLayout,
    plans: RolePlans,
    sizes: ModelSizes,
    link: Link,
    num_new_tokens: int,
    query_codec: str = DEFAULT_QUERY_CODEC,
) -> ExchangeTimes:
    """How long either exchange takes over links of one kind.

    Args:
        layout: the session if contributors send their rows.
        plans: its plans, and where they would be asked.
        sizes: of the model.
        link: of every node.
        num_new_tokens: tokens of the answer.
        query_codec: of queries and parts.
    """
    contributors = tuple(
        replace(member, plan=NOWHERE, answers=plans.asked) for member in layout.contributors
    )
    asked = replace(layout, members=(*contributors, layout.publisher))
    codec = query_codec_by_name(query_codec)
    passes = math.ceil(num_new_tokens / TOKENS_A_PASS) + 2
    question = asked_bytes(asked, sizes, codec, len(layout.publisher.span))
    answer = asked_bytes(asked, sizes, codec, 2 * max(1, num_new_tokens))  # decoded, and replayed
    num_trips = passes * len(plans.asked.layers)
    total = sum(one.total_up for one in (*question, *answer))
    most = max(
        max(first.total_up + second.total_up, first.total_down + second.total_down)
        for first, second in zip(question, answer, strict=True)
    )
    frames = session_bytes(layout, sizes.kv)
    most_of_frames = max(max(one.total_up, one.total_down) for one in frames)
    return ExchangeTimes(
        rows=most_of_frames / link.bytes_per_s + _HOPS * link.round_trip_s,
        asked=most / link.bytes_per_s + num_trips * _HOPS * link.round_trip_s,
        round_trips=num_trips,
        asked_bytes=total,
    )


def _size_of(
    kind: PieceKind, layout: SessionLayout, sizes: ModelSizes, codec: VectorCodec, num_tokens: int
) -> int:
    """Bytes of all pieces of one kind at a block."""
    heads, size = sizes.num_query_heads, sizes.kv.head_dim
    most = tokens_a_piece(heads, size, codec)
    header = PieceHeader(
        kind=kind, codec=codec, layer=0, num_heads=heads, head_dim=size, number=0,
        num_tokens=most, first_position=0, is_sealed=layout.publisher.is_sealed,
    )  # fmt: skip
    whole, rest = divmod(num_tokens, most)
    return whole * piece_size(header) + (
        piece_size(replace(header, num_tokens=rest)) if rest else 0
    )
