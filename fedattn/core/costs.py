"""The cost model: bytes, floating-point operations and memory of a session, before it runs.

Source of the formulas: Federated Attention, arXiv 2511.02647, and its authors' code; the downlink,
the stop of a contributor after its last upload, and the memory of attention without materialised
scores are ours. Sizes in bytes; a multiply-add counts 2 operations.

Letters: d hidden size, Hq and Hkv heads, D head size, F feed-forward size, V vocabulary, T computed
own tokens, S keys visible at a layer, P tokens of the public prefix, W positions of a sliding
window. Where heads receive different numbers of rows, S is their mean.

At a block with a window, S is what is within W of the queries if no position lacks its row; where
some do, less is computed than foretold.
"""

import math
from dataclasses import dataclass
from functools import cached_property

from fedattn.core.routing import Route, route_session
from fedattn.core.spans import Member, Role, SessionLayout
from fedattn.core.transfer import max_upload_size
from fedattn.core.types import KvShape

QUERIES_AT_ONCE = 256
"""Queries that attend together: enough for the kernels, and a mask of 2 MiB (8 MiB as scores) over
8k rows."""
TOKENS_AT_ONCE = 1024
"""Tokens that go through a feed-forward block together."""
_FLOAT32 = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSizes:
    """What costs follow from.

    Attributes:
        kv: blocks, key/value heads, head size.
        hidden_size: d.
        num_query_heads: Hq.
        intermediate_size: F, scalars inside a gated feed-forward block.
        vocab_size: V.
        weight_bytes: all weights in memory.
        bytes_per_scalar: of weights and activations while computing.
        windows: of every block, positions that a query sees, its own included, None for all; empty
            if no block has a window.
    """

    kv: KvShape
    hidden_size: int
    num_query_heads: int
    intermediate_size: int
    vocab_size: int
    weight_bytes: int
    bytes_per_scalar: int = 4
    windows: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        sizes = (self.hidden_size, self.num_query_heads, self.intermediate_size, self.vocab_size)
        if min(*sizes, self.weight_bytes, self.bytes_per_scalar) < 1:
            raise ValueError(f"ModelSizes needs positive sizes, got {self}")
        if self.windows and len(self.windows) != self.kv.num_layers:
            raise ValueError(
                f"windows: expected none or {self.kv.num_layers}, got {len(self.windows)}"
            )
        if any(window is not None and window < 1 for window in self.windows):
            raise ValueError(f"windows: expected positive ones, got {self.windows}")

    @property
    def query_width(self) -> int:
        """Hq * D."""
        return self.num_query_heads * self.kv.head_dim

    @property
    def kv_width(self) -> int:
        """Hkv * D."""
        return self.kv.num_kv_heads * self.kv.head_dim


@dataclass(frozen=True, kw_only=True)
class MemberBytes:
    """Bytes of frames of one participant by layer, headers included.

    Exact for codecs of fixed size, upper bounds for the others.
    """

    node_id: str
    up: dict[int, int]
    down: dict[int, int]

    @cached_property
    def total_up(self) -> int:
        return sum(self.up.values())

    @cached_property
    def total_down(self) -> int:
        return sum(self.down.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberCost:
    """What one participant's part of a session takes.

    Attributes:
        traffic: bytes by layer.
        flops_prefill: of its span; the public prefix is computed once a process, not a session.
        flops_decode: of the publisher's answer; 0 for contributors.
        peak_memory_bytes: weights, KV rows and the tensors of the largest block; without the
            memory of Python and its libraries.
    """

    traffic: MemberBytes
    flops_prefill: int
    flops_decode: int
    peak_memory_bytes: int


def session_bytes(layout: SessionLayout, shape: KvShape) -> tuple[MemberBytes, ...]:
    """Bytes of every participant, in token order.

    A participant sends one frame at each layer of its route, and is sent those of earlier spans at
    each layer at which it receives.
    """
    routes = route_session(layout)
    uploads = [
        {layer: max_upload_size(member, shape, layer) for layer in sorted(route.uploads)}
        for member, route in zip(layout.members, routes, strict=True)
    ]
    return tuple(
        MemberBytes(
            node_id=member.node_id,
            up=up,
            down={
                layer: sum(uploads[sender][layer] for sender in route.senders)
                for layer in sorted(route.receives)
            },
        )
        for member, route, up in zip(layout.members, routes, uploads, strict=True)
    )


def session_costs(
    layout: SessionLayout, sizes: ModelSizes, *, num_new_tokens: int = 0
) -> tuple[MemberCost, ...]:
    """Costs of every participant, in token order.

    Args:
        layout: the session.
        sizes: of the model.
        num_new_tokens: tokens the publisher decodes.
    """
    routes = route_session(layout)
    costs = []
    for member, route, traffic in zip(
        layout.members, routes, session_bytes(layout, sizes.kv), strict=True
    ):
        part = _Part(layout, sizes, member, route, num_new_tokens)
        costs.append(
            MemberCost(
                traffic=traffic,
                flops_prefill=part.flops_prefill(),
                flops_decode=part.flops_decode(),
                peak_memory_bytes=part.peak_memory_bytes(),
            )
        )
    return tuple(costs)


def session_memory(
    layout: SessionLayout, sizes: ModelSizes, index: int, *, num_new_tokens: int = 0
) -> int:
    """Bytes that a member's process holds while the session runs, beside the weights.

    Rows and tensors; of a publisher the rows once more for its decoder, and those that came as they
    came; of a contributor its frames. Takes no time to speak of.

    Args:
        layout: the session.
        sizes: of the model.
        index: place of the member.
        num_new_tokens: tokens the publisher decodes.
    """
    member, route = layout.members[index], route_session(layout)[index]
    frames = sum(max_upload_size(member, sizes.kv, layer) for layer in route.uploads)
    return frames + _Part(layout, sizes, member, route, num_new_tokens).session_bytes()


class _Part:
    """One participant's computation."""

    def __init__(
        self,
        layout: SessionLayout,
        sizes: ModelSizes,
        member: Member,
        route: Route,
        num_new_tokens: int,
    ) -> None:
        self._sizes = sizes
        self._route = route
        self._tokens = member.num_inputs
        self._is_publisher = member.role is Role.PUBLISHER
        self._prefix_len = layout.prefix_len
        self._is_kept = member.is_cached_by_owner
        others = [layout.members[other] for other in (*route.senders, *route.cached)]
        self._received = [self._rows_of(others, layer) for layer in range(sizes.kv.num_layers)]
        own = self._prefix_len + self._tokens
        self._seen = [own + received for received in self._received]
        """S of each layer, whatever its window: rows that the own tokens come after or are."""
        self._windows = [self._window_at(layer) for layer in range(sizes.kv.num_layers)]
        self._is_apart = any(other.compression.is_refitted for other in others)
        self._num_new_tokens = num_new_tokens if self._is_publisher else 0

    @property
    def _num_blocks(self) -> int:
        """Blocks computed whole: all of a publisher's, a contributor's below its last upload."""
        if self._is_publisher:
            return self._sizes.kv.num_layers
        return 0 if self._is_kept else self._route.last_needed or 0

    def flops_prefill(self) -> int:
        """Blocks, then the head for one token; a contributor's last upload is projections only."""
        idle = self._is_kept or self._route.last_needed is None
        if self._tokens == 0 or (not self._is_publisher and idle):
            return 0
        blocks = sum(
            _block_flops(self._sizes, self._tokens, self._attended(layer))
            for layer in range(self._num_blocks)
        )
        if self._is_publisher:
            return blocks + _head_flops(self._sizes)
        return blocks + _projection_flops(self._sizes, self._tokens)

    def flops_decode(self) -> int:
        """One token a pass. The first comes of the prefill, and the last is not run."""
        passes = max(0, self._num_new_tokens - 1)
        rest = _block_flops(self._sizes, 1, 0) * len(self._seen) + _head_flops(self._sizes)
        seen = (
            _attention_flops(self._sizes, _keys_of_passes(passes, seen, window))
            for seen, window in zip(self._seen, self._windows, strict=True)
        )
        return passes * rest + sum(seen)

    def peak_memory_bytes(self) -> int:
        """Weights + KV rows + the larger of attention's and feed-forward's tensors.

        A publisher keeps the rows it sees at every block; a contributor the public prefix, and one
        block's rows at a time, or those of all blocks where it answers.
        """
        return self._sizes.weight_bytes + self._rows_bytes() + self._tensors_bytes()

    def session_bytes(self) -> int:
        """As `session_memory`, without frames."""
        held = self._rows_bytes() + self._tensors_bytes()
        if self._is_publisher:
            sizes = self._sizes
            windows = zip(self._seen, self._windows, strict=True)
            fresh = sum(min(seen, window - 1) for seen, window in windows) + sum(self._received)
            fresh += self._num_new_tokens * sizes.kv.num_layers
            held += round(_FLOAT32 * fresh * sizes.kv.values_per_row)
        return held

    def _rows_bytes(self) -> int:
        rows: float = self._prefix_len * self._sizes.kv.num_layers
        rows += self._tokens * len(self._route.answers)
        if self._is_publisher:
            rows = sum(self._seen) + self._num_new_tokens * self._sizes.kv.num_layers
        return round(self._sizes.bytes_per_scalar * rows * self._sizes.kv.values_per_row)

    def _tensors_bytes(self) -> int:
        """Of the block that takes most; masks and feed-forward blocks a piece at a time."""
        sizes, tokens = self._sizes, self._tokens
        most = max(self._seen[: self._num_blocks], default=0)
        attention = 2 * tokens * sizes.hidden_size + 2 * tokens * sizes.query_width
        mask = min(tokens, QUERIES_AT_ONCE) * most * (1 + _FLOAT32)  # bools, and as scores
        seen = round(sizes.bytes_per_scalar * (attention + 2 * most * sizes.kv_width) + mask)
        wide = 3 * min(tokens, TOKENS_AT_ONCE) * sizes.intermediate_size
        feed_forward = 2 * tokens * sizes.hidden_size + wide
        return max(seen, sizes.bytes_per_scalar * feed_forward)

    def _window_at(self, layer: int) -> float:
        """W; infinite for none, and where others are asked: own rows are not cut to it there."""
        window = self._sizes.windows[layer] if self._sizes.windows else None
        return math.inf if window is None or layer in self._route.asks else window

    def _attended(self, layer: int) -> float:
        """Keys that queries of the prefill are multiplied with: those up to W before a piece.

        Rows of which each head has its own are only masked.
        """
        seen, window = self._seen[layer], self._windows[layer]
        if self._is_apart and layer in self._route.receives:
            return seen
        return min(seen, window - 1 + min(self._tokens, QUERIES_AT_ONCE))

    def _rows_of(self, others: list[Member], layer: int) -> float:
        """Rows of others at a layer, mean over heads."""
        if layer not in self._route.receives:
            return 0
        num_heads = self._sizes.kv.num_kv_heads
        return sum(sum(other.head_counts(layer, num_heads)) for other in others) / num_heads


def _projection_flops(sizes: ModelSizes, num_tokens: int) -> int:
    """Q, K and V of one block: 2 T d (Hq D + 2 Hkv D)."""
    return 2 * num_tokens * sizes.hidden_size * (sizes.query_width + 2 * sizes.kv_width)


def _block_flops(sizes: ModelSizes, num_tokens: int, num_visible: float) -> int:
    """One block: projections, 4 T S Hq D of attention, output 2 T d Hq D, feed-forward 6 T d F.

    With d = Hq D and r = Hkv / Hq this is the paper's 2 T d^2 (2 + 2r) + 4 T S d + 6 T d F.
    """
    attention = _attention_flops(sizes, num_tokens * num_visible)
    output = 2 * num_tokens * sizes.hidden_size * sizes.query_width
    feed_forward = 6 * num_tokens * sizes.hidden_size * sizes.intermediate_size
    return _projection_flops(sizes, num_tokens) + attention + output + feed_forward


def _keys_of_passes(passes: int, seen: float, window: float) -> float:
    """Keys of all passes of an answer together: pass n sees S and n more, at most W.

    Example, 3 passes behind 4 rows: 5 + 6 + 7, and 5 + 5 + 5 if W is 5.
    """
    growing = int(min(passes, max(0, window - seen)))
    keys = growing * seen + growing * (growing + 1) / 2
    return keys if growing == passes else keys + (passes - growing) * window


def _attention_flops(sizes: ModelSizes, num_pairs: float) -> int:
    """Queries times keys, and weights times values: 4 Hq D of each pair of query and key."""
    return round(4 * num_pairs * sizes.query_width)


def _head_flops(sizes: ModelSizes) -> int:
    """The language-model head for one token: 2 d V."""
    return 2 * sizes.hidden_size * sizes.vocab_size
