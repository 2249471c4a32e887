"""Who owns which tokens of the global sequence, and who synchronises where."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise

import numpy as np

from fedattn.core.compression import Compression
from fedattn.core.plans import SyncPlan
from fedattn.core.selection import num_kept
from fedattn.core.types import IntArray


class Role(StrEnum):
    """What a participant does in one session."""

    CONTRIBUTOR = "contributor"
    PUBLISHER = "publisher"


class PrefixMode(StrEnum):
    """Who holds the system prompt and the chat header.

    PUBLIC: everybody computes them, nobody sends them.
    FIRST: the first participant owns them like the rest of its span (the paper's code).
    """

    PUBLIC = "public"
    FIRST = "first"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open range [start, stop) of global token positions."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"a span needs 0 <= start <= stop, got [{self.start}, {self.stop})")

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One participant of a session.

    A contributor with an input keep ratio below 1 computes only some tokens of its span; with a
    keep ratio below 1 it sends only some of their rows. Example, span [10, 20):

        input_keep_ratio 0.5, keep_ratio 0.5    computes 5 tokens, sends 2 rows a layer

    Attributes:
        is_cached_by_owner: a contributor that still has its frames and need not compute them.
        is_cached_by_publisher: a contributor whose rows the publisher still has.
        cache_key: names all that its rows follow from (`fedattn.core.reuse`); empty if they are not
            to be reused.
        cache_lifetime_s: how long the publisher may keep its rows; 0 for not beyond the session.
        position_offset: how many positions before its span its rows are computed; receivers rotate
            their keys forward by as many. Above 0 only for one that attends to nobody.
    """

    node_id: str
    role: Role
    span: Span
    plan: SyncPlan
    compression: Compression = field(default_factory=Compression)
    is_cached_by_owner: bool = False
    is_cached_by_publisher: bool = False
    cache_key: bytes = b""
    cache_lifetime_s: float = 0.0
    position_offset: int = 0

    @property
    def computed_span(self) -> Span:
        """Where its rows are computed, and what its frames say."""
        return Span(self.span.start - self.position_offset, self.span.stop - self.position_offset)

    @property
    def num_inputs(self) -> int:
        """Tokens of the span that are computed; the publisher's all are."""
        if self.role is Role.PUBLISHER:
            return len(self.span)
        return num_kept(len(self.span), self.compression.input_keep_ratio)

    @property
    def num_sent(self) -> int:
        """Rows that travel at each layer it uploads."""
        return num_kept(self.num_inputs, self.compression.keep_ratio)

    def input_positions(self) -> IntArray:
        """Global positions of the tokens that are computed, [num_inputs] int64, sorted."""
        positions = np.arange(self.span.start, self.span.stop, dtype=np.int64)
        if self.num_inputs == len(positions):
            return positions
        random = np.random.default_rng([self.compression.seed, self.computed_span.start])
        return np.sort(random.choice(positions, size=self.num_inputs, replace=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLayout:
    """The global token order of one session: public prefix, contributors, publisher.

    Example with a prefix of 2 tokens, one contributor of 2 and a publisher of 1:

        position   0  1  | 2  3 | 4
        owner      prefix  c1     publisher
    """

    num_layers: int
    prefix_len: int
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        if not self.members or self.members[-1].role is not Role.PUBLISHER:
            raise ValueError("a session needs a publisher, and its span comes last")
        if any(member.role is Role.PUBLISHER for member in self.members[:-1]):
            raise ValueError("a session has exactly one publisher")
        if len({member.node_id for member in self.members}) != len(self.members):
            raise ValueError("a node takes part in a session once")
        if self.members[0].span.start != self.prefix_len:
            raise ValueError(
                f"the first span starts after the public prefix, at {self.prefix_len}, "
                f"got {self.members[0].span.start}"
            )
        for before, after in pairwise(self.members):
            if before.span.stop != after.span.start:
                raise ValueError(f"spans must be adjacent, got {before.span} then {after.span}")
        for member in self.members:
            member.plan.check(self.num_layers)
            if not 0 <= member.position_offset <= member.span.start - self.prefix_len:
                raise ValueError(
                    f"{member.node_id} cannot compute before the prefix ends: its span starts at "
                    f"{member.span.start}, the position_offset is {member.position_offset}"
                )
            if member.position_offset and (member.role is Role.PUBLISHER or member.plan.layers):
                raise ValueError(f"{member.node_id} attends to others, so it cannot be shifted")

    @property
    def publisher(self) -> Member:
        return self.members[-1]

    @property
    def contributors(self) -> tuple[Member, ...]:
        return self.members[:-1]

    @property
    def num_tokens(self) -> int:
        """Length of the global prompt, public prefix included."""
        return self.members[-1].span.stop

    def without_reuse(self) -> "SessionLayout":
        """The same session with nothing cached."""
        members = tuple(
            replace(member, is_cached_by_owner=False, is_cached_by_publisher=False)
            for member in self.members
        )
        return replace(self, members=members)

    def index_of(self, node_id: str) -> int:
        """Place of a node in token order.

        Raises:
            KeyError: the node is no member of this session.
        """
        for index, member in enumerate(self.members):
            if member.node_id == node_id:
                return index
        raise KeyError(node_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePlans:
    """The sync plan of each role."""

    contributors: SyncPlan
    publisher: SyncPlan

    @property
    def num_travelling(self) -> int:
        """Blocks at which anybody's rows travel.

        What contributors would receive above the publisher's last block reaches nobody.
        """
        last = max(self.publisher.layers, default=-1)
        below = {layer for layer in self.contributors.layers if layer < last}
        return len(below | set(self.publisher.layers))


def shared_plan(layers: Iterable[int]) -> RolePlans:
    """The same sync layers for both roles, in any order."""
    plan = SyncPlan(tuple(sorted(layers)))
    return RolePlans(contributors=plan, publisher=plan)


def build_layout(
    *,
    num_layers: int,
    prefix_len: int,
    contributors: list[tuple[str, int]],
    publisher: tuple[str, int],
    plans: RolePlans,
    compression: Compression | None = None,
    independent: bool = False,
) -> SessionLayout:
    """Lay the participants out in token order.

    Args:
        num_layers: Transformer blocks of the model.
        prefix_len: tokens of the public prefix.
        contributors: (node id, own tokens) in token order.
        publisher: (node id, own tokens).
        plans: sync plan of each role.
        compression: of every member; None for the defaults.
        independent: contributors compute as if each followed the public prefix alone, so that
            their rows fit any order. Their plan must be empty.
    """
    members: list[Member] = []
    start = prefix_len
    for node_id, num_tokens in [*contributors, publisher]:
        is_publisher = len(members) == len(contributors)
        span = Span(start, start + num_tokens)
        members.append(
            Member(
                node_id=node_id,
                role=Role.PUBLISHER if is_publisher else Role.CONTRIBUTOR,
                span=span,
                plan=plans.publisher if is_publisher else plans.contributors,
                compression=compression or Compression(),
                position_offset=start - prefix_len if independent and not is_publisher else 0,
            )
        )
        start = span.stop
    return SessionLayout(num_layers=num_layers, prefix_len=prefix_len, members=tuple(members))


def limit_keep_ratios(layout: SessionLayout, most: list[float]) -> SessionLayout:
    """The layout with each contributor keeping at most its share of rows.

    Args:
        layout: the session as wished.
        most: of each contributor, in token order, above 0 to 1.
    """
    contributors = tuple(
        replace(
            member,
            compression=replace(
                member.compression, keep_ratio=min(member.compression.keep_ratio, ratio)
            ),
        )
        for member, ratio in zip(layout.contributors, most, strict=True)
    )
    return replace(layout, members=(*contributors, layout.publisher))
