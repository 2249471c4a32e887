"""Nodes as the crowd has them, and their parts in sessions."""

import asyncio
from dataclasses import dataclass, field

from fedattn.core.routing import route_session
from fedattn.wire.terms import terms_from_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from tests.harness.calls import Call
from tests.harness.raw import frame_chunks

Control = Call[pb.ControlRequest, pb.ControlResponse]
Exchange = Call[bytes, bytes | pb.ExchangeResponse]


@dataclass(slots=True, eq=False)
class Peer:
    """A node: joined, frozen, or gone."""

    node_id: str
    control: Control | None = None
    is_frozen: bool = False
    answered: set[str] = field(default_factory=set)
    declined: set[str] = field(default_factory=set)

    def commands(self) -> list[pb.ControlResponse]:
        """What its control stream of now has told it."""
        return [] if self.control is None else self.control.responses

    @property
    def is_connected(self) -> bool:
        return self.control is not None and not self.control.is_over

    @property
    def token(self) -> str:
        """From its latest welcome."""
        return self.commands()[0].welcome.node_token if self.commands() else ""


@dataclass(slots=True, eq=False)
class Member:
    """One node's part in a session, by the start it was told of.

    Attributes:
        expected: nodes that the report has to tell of; of the publisher alone.
        to_send: pieces of its frames that it has not sent yet.
    """

    node_id: str
    start: pb.SessionStart
    to_send: list[pb.ExchangeRequest]
    expected: frozenset[str] = frozenset()
    call: Exchange | None = None
    sent_bytes: int = 0
    is_reported: bool = False

    @property
    def is_reading(self) -> bool:
        return self.call is not None and self.call.is_reading.is_set()

    @property
    def session_id(self) -> str:
        return self.start.terms.session_id


@dataclass(slots=True, eq=False)
class Opening:
    """A call of OpenSession."""

    publisher: Peer
    expected: frozenset[str]
    task: asyncio.Task[pb.OpenSessionResponse | None]


def pieces_of(start: pb.SessionStart, node_id: str) -> list[pb.ExchangeRequest]:
    """All that a member is to send, each frame in two chunks."""
    layout = terms_from_wire(start.terms).layout
    place = [member.node_id for member in layout.members].index(node_id)
    pieces = []
    for layer in sorted(route_session(layout)[place].uploads):
        for request in frame_chunks(start, node_id, layer):
            whole = request.chunk
            half = len(whole.data) // 2
            for offset, data in ((0, whole.data[:half]), (half, whole.data[half:])):
                piece = pb.ExchangeRequest(chunk=whole)
                piece.chunk.offset, piece.chunk.data = offset, data
                pieces.append(piece)
    return pieces
