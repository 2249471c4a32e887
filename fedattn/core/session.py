"""State of a running session, as its aggregator sees it: who is where, what moved.

Each member goes its way once, left to right:

    WAITING -> ATTACHED -> COMPLETE
       \\________\\________ LOST

A contributor of which nobody needs a row, as the publisher has cached them, is COMPLETE at once.
LATE is a remark on a member others went on without; it may still complete for itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from fedattn.core.chunks import Chunk, FrameValidator
from fedattn.core.errors import InvalidRequestError, SessionStateError
from fedattn.core.frame_headers import FrameSpec
from fedattn.core.routing import Route, route_session
from fedattn.core.spans import Member, SessionLayout
from fedattn.core.timeline import Slice
from fedattn.core.transfer import frame_spec
from fedattn.core.types import KvShape


class MemberState(Enum):
    """Where a member is on its way."""

    WAITING = "waiting"
    ATTACHED = "attached"
    COMPLETE = "complete"
    LOST = "lost"


_NEXT = {
    MemberState.WAITING: {MemberState.ATTACHED, MemberState.LOST},
    MemberState.ATTACHED: {MemberState.COMPLETE, MemberState.LOST},
    MemberState.COMPLETE: set[MemberState](),
    MemberState.LOST: set[MemberState](),
}


@dataclass(slots=True)
class MemberLedger:
    """What one member did so far.

    Attributes:
        state: where it is on its way.
        bytes_up: layer -> bytes of frames it sent, headers included.
        bytes_down: layer -> bytes of frames it was sent, headers included.
        validator: of the frames that come from it.
        late_from: first layer at which somebody went on without it.
        wait_s, compute_s: its own times, seconds.
        reason: why it was lost, for people.
        complaints: by place of a member that went on without it, why it says it did.
        timeline: what it did when, if it was asked to tell.
        keys_passed: places of members that were passed the key of its frames.
        num_pieces: of queries that the publisher sent, or that a member answered.
        is_asked: whether it answers queries until the publisher is done.
    """

    validator: FrameValidator
    state: MemberState = MemberState.WAITING
    bytes_up: dict[int, int] = field(default_factory=dict)
    bytes_down: dict[int, int] = field(default_factory=dict)
    late_from: int | None = None
    wait_s: float = 0.0
    compute_s: float = 0.0
    reason: str = ""
    complaints: dict[int, str] = field(default_factory=dict)
    timeline: list[Slice] = field(default_factory=list)
    keys_passed: set[int] = field(default_factory=set)
    num_pieces: int = 0
    is_asked: bool = False

    def move(self, state: MemberState) -> None:
        """Take the next step.

        Raises:
            SessionStateError: that step is not possible from here.
        """
        if state not in _NEXT[self.state]:
            raise SessionStateError(f"a member that is {self.state.value} cannot be {state.value}")
        self.state = state

    @property
    def awaited(self) -> frozenset[int]:
        """Layers whose frame has not completely come from it."""
        return self.validator.awaited_layers

    @property
    def is_over(self) -> bool:
        return not _NEXT[self.state]

    @property
    def missing_from(self) -> int | None:
        """First layer at which somebody had to go without it; None if nobody had to."""
        missing = [self.late_from] if self.late_from is not None else []
        if self.state is MemberState.LOST and self.awaited:
            missing.append(min(self.awaited))
        return min(missing, default=None)


class SessionState:
    """Routes and ledgers of one session; knows no network and no clock."""

    def __init__(self, layout: SessionLayout, shape: KvShape) -> None:
        self.layout = layout
        self.shape = shape
        self.routes: tuple[Route, ...] = route_session(layout)
        self._successors = tuple(
            tuple(i for i, route in enumerate(self.routes) if index in route.sources)
            for index in range(len(self.routes))
        )
        self.ledgers = tuple(
            MemberLedger(
                FrameValidator(self.frame_specs(index, route.uploads)),
                state=MemberState.COMPLETE if self.is_idle(index) else MemberState.WAITING,
                is_asked=bool(route.answers),
            )
            for index, route in enumerate(self.routes)
        )

    def frame_specs(self, index: int, layers: Iterable[int]) -> dict[int, FrameSpec]:
        """What the frames of a member at some layers must look like."""
        member = self.layout.members[index]
        return {layer: frame_spec(member, self.shape, layer) for layer in layers}

    def accept(self, sender: int, chunk: Chunk) -> None:
        """Check and count the next chunk of a member.

        Raises:
            FrameError: it is not what this member was to send.
        """
        ledger = self.ledgers[sender]
        ledger.validator.accept(chunk)
        ledger.bytes_up[chunk.layer] = ledger.bytes_up.get(chunk.layer, 0) + len(chunk.data)

    def take_queries(self, number: int, layer: int, size: int) -> tuple[int, ...]:
        """Check and count queries of the publisher; the members that are to answer them.

        Raises:
            InvalidRequestError: they are not the next, or of a layer at which nobody is asked.
        """
        ledger, route = self.ledgers[-1], self.routes[-1]
        if number != ledger.num_pieces or layer not in route.asks:
            raise InvalidRequestError(
                f"queries {number} at layer {layer} are not awaited: expected "
                f"{ledger.num_pieces}, at a layer of {sorted(route.asks)}"
            )
        ledger.num_pieces += 1
        ledger.bytes_up[layer] = ledger.bytes_up.get(layer, 0) + size
        return tuple(index for index in route.asked if not self.ledgers[index].is_over)

    def lagging(self, most: int) -> tuple[int, ...]:
        """Members that are asked and have not answered more than so many pieces."""
        sent, asked = self.ledgers[-1].num_pieces, self.routes[-1].asked
        return tuple(
            index
            for index in asked
            if not self.ledgers[index].is_over and sent - self.ledgers[index].num_pieces > most
        )

    def take_part(self, sender: int, number: int, layer: int, size: int) -> None:
        """Check and count what a member that is asked makes of queries.

        Raises:
            InvalidRequestError: it is not asked, or these are not the next queries.
        """
        ledger = self.ledgers[sender]
        is_next = number == ledger.num_pieces < self.ledgers[-1].num_pieces
        if layer not in self.routes[sender].answers or not is_next:
            raise InvalidRequestError(
                f"{self.member(sender).node_id} answers queries {number} at layer {layer}, "
                f"expected {ledger.num_pieces} of {self.ledgers[-1].num_pieces} that were sent"
            )
        ledger.num_pieces += 1
        ledger.bytes_up[layer] = ledger.bytes_up.get(layer, 0) + size

    def receivers(self, sender: int, layer: int) -> tuple[int, ...]:
        """Members that want a sender's rows of a layer and are still there."""
        return tuple(
            index
            for index in self._successors[sender]
            if layer in self.routes[index].receives and not self.ledgers[index].is_over
        )

    def is_due(self, index: int) -> bool:
        """Whether others that are there need a member's next frame, and it waits for no rows."""
        ledger, route = self.ledgers[index], self.routes[index]
        if ledger.state is not MemberState.ATTACHED or not ledger.awaited:
            return False
        following = min(ledger.awaited)
        before = {layer for layer in route.receives if layer < following}
        if before:
            senders = [self.ledgers[sender] for sender in route.senders]
            if any(not one.is_over and not before.isdisjoint(one.awaited) for one in senders):
                return False
        receivers = self.receivers(index, following)
        return any(self.ledgers[one].state is MemberState.ATTACHED for one in receivers)

    def pass_key(self, sender: int, receiver: int) -> None:
        """Count the key of one member's frames on its way to another.

        Raises:
            InvalidRequestError: the receiver needs none, or has been passed one.
        """
        passed = self.ledgers[sender].keys_passed
        if receiver not in self.key_receivers(sender) or receiver in passed:
            raise InvalidRequestError(
                f"{self.member(sender).node_id} sends a key to member {receiver}, which "
                f"{'has one' if receiver in passed else 'needs none'}"
            )
        passed.add(receiver)

    def key_receivers(self, sender: int) -> tuple[int, ...]:
        """Members that read any frame of this one, its queries or its parts, and need its key."""
        route = self.routes[sender]
        rows = (i for i in self._successors[sender] if self.routes[i].receives & route.uploads)
        asks = self._successors[sender] if route.answers else ()
        return tuple(sorted({*rows, *asks, *route.asked}))

    def successors(self, index: int) -> tuple[int, ...]:
        """Members that receive from this one at any layer."""
        return self._successors[index]

    def count_down(self, receiver: int, layer: int, size: int) -> None:
        ledger = self.ledgers[receiver]
        ledger.bytes_down[layer] = ledger.bytes_down.get(layer, 0) + size

    def note_late(self, index: int, from_layer: int, reason: str, by: int) -> None:
        """A member says, with its first word, that it went on without another from a layer on.

        Its reason gets no semicolon: behind one, `explain` lets the next speak.
        """
        ledger = self.ledgers[index]
        ledger.complaints.setdefault(by, reason.replace(";", ","))
        if ledger.late_from is None or from_layer < ledger.late_from:
            ledger.late_from = from_layer

    def explain(self, index: int) -> str:
        """Why a member's part did not end well: its own end, then what others say of it.

        Example: connection lost; b, publisher: rows of a at block 1: keys of norm 812, ...
        """
        ledger = self.ledgers[index]
        speakers: dict[str, list[str]] = {}
        for by in sorted(ledger.complaints):
            speakers.setdefault(ledger.complaints[by], []).append(self.member(by).node_id)
        said = [f"{', '.join(names)}: {reason}" for reason, names in speakers.items()]
        return "; ".join(filter(None, [ledger.reason, *said]))

    @property
    def is_over(self) -> bool:
        return all(ledger.is_over for ledger in self.ledgers)

    @property
    def is_clean(self) -> bool:
        """Whether everybody had all it should have."""
        return all(
            ledger.state is MemberState.COMPLETE and ledger.late_from is None
            for ledger in self.ledgers
        )

    def done_contributors(self) -> list[str]:
        """Ids of those who sent all that others needed of them, and said so."""
        return [
            member.node_id
            for member, route, ledger in zip(
                self.layout.contributors, self.routes, self.ledgers, strict=False
            )
            if route.needed and ledger.state is MemberState.COMPLETE
        ]

    def is_idle(self, index: int) -> bool:
        """Whether a contributor has nothing to send, and so needs nothing: it opens no exchange."""
        return not self.is_publisher(index) and not self.routes[index].needed

    def is_publisher(self, index: int) -> bool:
        """Whether this member asks; it is the last in token order."""
        return index == len(self.routes) - 1

    def member(self, index: int) -> Member:
        return self.layout.members[index]
