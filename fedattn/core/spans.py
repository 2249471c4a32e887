"""Who owns which tokens of the global sequence, and who synchronises where."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise

import numpy as np

from fedattn.core.compression import Compression, num_kept
from fedattn.core.plans import NOWHERE, RolePlans, SyncPlan
from fedattn.core.types import HeadCounts, IntArray


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
        cache_key: names all that the member's rows follow from (`fedattn.core.reuse`); empty if
            these rows are not to be reused.
        cache_lifetime_s: how long the publisher may cache the member's rows; 0 for not beyond the
            session.
        position_offset: positions between where the rows are computed and the span, which comes
            later. Receivers rotate the keys forward by this number. Above 0 only for a member that
            attends to nobody.
        num_withheld: rows that never travel, because its owner does not let them.
        is_sealed: whether its frames are sealed, for those alone who need its rows.
        answers: blocks at which a contributor attends for the publisher's queries, instead of
            sending rows: those stay with it, and nobody else sees them. It attends to nobody, and
            computes right behind the public prefix.
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
    num_withheld: int = 0
    is_sealed: bool = False
    answers: SyncPlan = NOWHERE

    @property
    def is_asked(self) -> bool:
        """Whether its rows stay with it."""
        return bool(self.answers.layers)

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

    def head_counts(self, layer: int, num_heads: int) -> HeadCounts:
        """Rows of each head that travel at a layer it uploads."""
        most = max(1, self.num_inputs - self.num_withheld)
        counts = self.compression.head_counts(self.num_inputs, layer, num_heads)
        return tuple(min(count, most) for count in counts)

    def mean_rows(self, layers: Iterable[int], num_heads: int) -> float:
        """Rows of one head at one of these layers, in the mean; 0 for no layer."""
        counts = [count for layer in layers for count in self.head_counts(layer, num_heads)]
        return sum(counts) / max(1, len(counts))

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
            self._check_member(member)
        if len({member.answers for member in self.members if member.is_asked}) > 1:
            raise ValueError("all contributors that are asked answer at the same blocks")

    def _check_member(self, member: Member) -> None:
        member.plan.check(self.num_layers)
        member.answers.check(self.num_layers)
        if not 0 <= member.position_offset <= member.span.start - self.prefix_len:
            raise ValueError(
                f"{member.node_id} cannot compute before the prefix ends: its span starts at "
                f"{member.span.start}, the position_offset is {member.position_offset}"
            )
        attends = member.role is Role.PUBLISHER or bool(member.plan.layers)
        if member.position_offset and attends:
            raise ValueError(f"{member.node_id} attends to others, so it cannot be shifted")
        if member.is_asked and attends:
            raise ValueError(f"{member.node_id} attends to others, so it cannot be asked")

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


def build_layout(
    *,
    num_layers: int,
    prefix_len: int,
    contributors: list[tuple[str, int]],
    publisher: tuple[str, int],
    plans: RolePlans,
    compression: Compression | None = None,
    independent: bool = False,
    is_sealed: bool = False,
    asked: Collection[str] = (),
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
        is_sealed: whether frames are sealed.
        asked: ids of contributors whose rows stay with them; they compute as independent ones.
    """
    members: list[Member] = []
    start = prefix_len
    for node_id, num_tokens in [*contributors, publisher]:
        is_publisher = len(members) == len(contributors)
        span = Span(start, start + num_tokens)
        plan = plans.publisher if is_publisher else plans.contributors
        is_asked = not is_publisher and node_id in asked
        is_independent = not is_publisher and independent
        members.append(
            Member(
                node_id=node_id,
                role=Role.PUBLISHER if is_publisher else Role.CONTRIBUTOR,
                span=span,
                plan=NOWHERE if is_asked else plan,
                compression=compression or Compression(),
                position_offset=start - prefix_len if is_asked or is_independent else 0,
                is_sealed=is_sealed,
                answers=plans.asked if is_asked else NOWHERE,
            )
        )
        start = span.stop
    return SessionLayout(num_layers=num_layers, prefix_len=prefix_len, members=tuple(members))
