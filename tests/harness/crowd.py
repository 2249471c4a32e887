"""Nodes at one aggregator in virtual time, each of which can be told to do anything.

Nothing is sent over sockets: `Call` stands for a stream, and a frozen node's window is full.
"""

import asyncio
import secrets
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from fedattn.core.errors import FedAttnError
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.aggregator.servicer import AggregatorServicer
from services.aggregator.settings import AggregatorSettings
from tests.harness.calls import Plaintext
from tests.harness.holdings import OUTBOX_BYTES, Holdings
from tests.harness.peers import Control, Exchange, Member, Opening, Peer, pieces_of
from tests.harness.raw import acceptance, edited, hello, join_message, open_request
from tests.harness.virtual_time import VirtualLoop

CONTRIBUTORS = ["a", "b", "c"]
NODES = [*CONTRIBUTORS, "publisher"]
BEAT_S = 2.5
_SETTINGS = AggregatorSettings(max_sessions=4, max_sessions_per_node=3).model_copy(
    update={"outbox_bytes": OUTBOX_BYTES}
)


class Crowd:
    """The aggregator and all its nodes; each method lets everybody do what is to be done now."""

    def __init__(self) -> None:
        self._loop = VirtualLoop()
        self._failures: list[dict[str, object]] = []
        self._loop.set_exception_handler(lambda _, context: self._failures.append(context))
        numbers = CollectorRegistry()
        self._aggregator = AggregatorServicer(_SETTINGS, numbers, clock=self._loop.time)
        self.holds = Holdings(self._aggregator, numbers)
        self.peers = {node_id: Peer(node_id) for node_id in NODES}
        self.openings: list[Opening] = []
        self._members: dict[tuple[str, str], Member] = {}
        self._strays: list[Exchange] = []

    # nodes

    def join(self, node_id: str) -> None:
        """Open a control stream; refused if the last one still counts."""
        peer = self.peers[node_id]
        control = Control(self._loop, self._aggregator.Control)
        control.send(pb.ControlRequest(join=join_message(node_id)))
        self._loop.settle()
        if control.error is None:
            peer.control = control
            self._set_reading(peer)

    def leave(self, peer: Peer, *, politely: bool) -> None:
        assert peer.control is not None
        self._end(peer.control, politely=politely)

    def freeze(self, node_id: str, *, frozen: bool) -> None:
        """Let a node read and say nothing any more, or go on."""
        peer = self.peers[node_id]
        peer.is_frozen = frozen
        self._set_reading(peer)
        self._settle()

    def wait(self, seconds: float) -> None:
        """Let time pass, in which those that are awake send their heartbeats."""
        end = self.now() + seconds
        while (left := end - self.now()) > 0:
            for peer in self.awake():
                assert peer.control is not None
                peer.control.send(pb.ControlRequest(heartbeat=pb.Heartbeat()))
            self._loop.run_for(min(BEAT_S, left))
            self._settle()

    # opening

    def open(
        self,
        publisher: Peer,
        layers: tuple[int, ...],
        deadline_s: float,
        names: list[str],
        least: int,
    ) -> None:
        """Ask for a session; who named nobody is to hear of everybody that is joined."""

        def edit(request: session_pb2.SessionRequest) -> None:
            request.node_id, request.nonce = publisher.node_id, secrets.token_bytes(16)
            request.contributor_sync_layers[:] = request.publisher_sync_layers[:] = layers
            request.options.deadline_s = deadline_s
            request.options.contributors[:] = names
            request.options.min_participants = least

        message = edited(open_request(node_token=publisher.token), edit)
        expected = (
            frozenset({publisher.node_id, *names}) if names else frozenset(self.holds.listed())
        )
        task = self._loop.create_task(self._opened(message))
        self.openings.append(Opening(publisher, expected, task))
        self._settle()

    async def _opened(self, message: pb.OpenSessionRequest) -> pb.OpenSessionResponse | None:
        try:
            return await self._aggregator.OpenSession(message, Plaintext())
        except FedAttnError:
            return None

    def give_up(self, opening: Opening) -> None:
        """The publisher's call breaks off."""
        opening.task.cancel()
        self._settle()

    def accept(self, peer: Peer, invite: pb.Invite, span_len: int) -> None:
        assert peer.control is not None
        peer.answered.add(invite.session_id)
        reply = acceptance(peer.node_id, invite, span_len)
        peer.control.send(pb.ControlRequest(invite_reply=reply))
        self._settle()

    def decline(self, peer: Peer, session_id: str) -> None:
        """Say no, at any time: to an invitation, late, or to a session of others."""
        assert peer.control is not None
        peer.answered.add(session_id)
        peer.declined.add(session_id)
        decline = pb.Decline(code="node_busy", message="no")
        reply = pb.InviteReply(session_id=session_id, decline=decline)
        peer.control.send(pb.ControlRequest(invite_reply=reply))
        self._settle()

    # exchange

    def attach(self, member: Member) -> None:
        """Open an exchange stream; a second one is refused."""
        call = Exchange(self._loop, self._aggregator.Exchange)
        call.send(hello(member.start).SerializeToString())
        if member.call is None:
            member.call = call
        else:
            self._strays.append(call)
        self._settle()

    def send(self, member: Member) -> None:
        """Send the next piece of a frame, if there is one."""
        if member.to_send:
            message = member.to_send.pop(0)
            member.sent_bytes += len(message.chunk.data)
            self._exchange(member, message)

    def send_nonsense(self, member: Member) -> None:
        chunk = pb.KvChunk(layer=1, offset=7, frame_size=9, data=b"xy")
        member.sent_bytes += 2
        self._exchange(member, pb.ExchangeRequest(chunk=chunk))

    def say_done(self, member: Member, *, late: bool) -> None:
        """The last word, true or not."""
        done = pb.MemberDone(wait_s=0.5)
        if late:
            done.late.add(member=0, from_layer=1, reason="slow")
        self._exchange(member, pb.ExchangeRequest(done=done))

    def read(self, member: Member, *, reads: bool) -> None:
        assert member.call is not None
        (member.call.is_reading.set if reads else member.call.is_reading.clear)()
        self._settle()

    def hang_up(self, member: Member, *, politely: bool) -> None:
        assert member.call is not None
        self._end(member.call, politely=politely)

    # who is where

    def now(self) -> float:
        return self._loop.time()

    def connected(self) -> list[Peer]:
        return [peer for peer in self.peers.values() if peer.is_connected]

    def joined(self) -> list[Peer]:
        """Those that can do something at their control streams, frozen ones too."""
        return [peer for peer in self.connected() if peer.token]

    def awake(self) -> list[Peer]:
        return [peer for peer in self.joined() if not peer.is_frozen]

    def invited(self) -> list[tuple[Peer, pb.Invite]]:
        """Invitations that nobody has answered."""
        return [
            (peer, command.invite)
            for peer in self.awake()
            for command in peer.commands()
            if command.HasField("invite") and command.invite.session_id not in peer.answered
        ]

    @property
    def invites(self) -> list[str]:
        """Ids of sessions that anybody was invited to, the latest ones."""
        told = [command for peer in self.joined() for command in peer.commands()]
        seen = [command.invite.session_id for command in told if command.HasField("invite")]
        return list(dict.fromkeys(seen))[-3:]

    def absent(self) -> list[Member]:
        """Members that were told to begin, and have not."""
        return [one for one in self._able() if one.call is None]

    def present(self) -> list[Member]:
        """Members whose exchange runs."""
        return [one for one in self._able() if one.call is not None and not one.call.is_over]

    def member(self, session_id: str, node_id: str) -> Member | None:
        return self._members.get((session_id, node_id))

    def _able(self) -> list[Member]:
        return [one for one in self._members.values() if not self.peers[one.node_id].is_frozen]

    # what they were told

    def left_in_the_dark(self) -> list[tuple[str, str]]:
        """Nodes that accepted and were told neither to begin nor that nothing comes of it."""
        dark = []
        for peer in self.awake():
            asked = {one.invite.session_id for one in peer.commands() if one.HasField("invite")}
            begun = {one.start.terms.session_id for one in peer.commands() if one.HasField("start")}
            ended = {one.cancel.session_id for one in peer.commands() if one.HasField("cancel")}
            dark += [(peer.node_id, one) for one in asked - begun - ended - peer.declined]
        return dark

    def new_reports(self) -> list[tuple[Member, session_pb2.SessionReport]]:
        """Reports that have come since this was last asked, and who got them."""
        found = []
        for member in self._members.values():
            if member.call is not None and not member.is_reported:
                for response in member.call.responses:
                    if isinstance(response, pb.ExchangeResponse) and response.HasField("report"):
                        member.is_reported = True
                        found.append((member, response.report))
        return found

    def check_nothing_is_left(self) -> None:
        """Nobody is there, nothing is held for anybody, and nothing runs or has failed."""
        self.holds.check_nothing_is_left()
        assert asyncio.all_tasks(self._loop) == set()
        assert self._failures == []

    def close(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.settle()
        self._loop.close()

    # how

    def _settle(self) -> None:
        """Let everybody do what is to be done now; take note of who was told to begin."""
        self._loop.settle()
        for peer in self.connected():
            for command in peer.commands():
                if command.HasField("start"):
                    self._begin(peer.node_id, command.start, frozenset())
        for opening in [one for one in self.openings if one.task.done()]:
            self.openings.remove(opening)
            response = None if opening.task.cancelled() else opening.task.result()
            if response is not None:
                self._begin(opening.publisher.node_id, response.start, opening.expected)

    def _begin(self, node_id: str, start: pb.SessionStart, expected: frozenset[str]) -> None:
        key = (start.terms.session_id, node_id)
        if key not in self._members:
            self._members[key] = Member(node_id, start, pieces_of(start, node_id), expected)

    def _exchange(self, member: Member, message: pb.ExchangeRequest) -> None:
        assert member.call is not None
        member.call.send(message.SerializeToString())
        self._settle()

    def _end(self, call: Control | Exchange, *, politely: bool) -> None:
        end: Callable[[], None] = call.half_close if politely else call.break_off
        end()
        self._settle()

    def _set_reading(self, peer: Peer) -> None:
        """A frozen node reads nothing."""
        calls = [one.call for one in self._members.values() if one.node_id == peer.node_id]
        for call in (peer.control, *calls):
            if call is not None:
                (call.is_reading.clear if peer.is_frozen else call.is_reading.set)()
