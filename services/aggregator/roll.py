"""Who is joined, here and at other aggregators, and what passes between nodes and sessions."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass

import structlog
from cachetools import LRUCache

from fedattn.core.errors import DuplicateNodeError, FedAttnError, error_from_code
from fedattn.core.limits import MAX_MEMBERS
from fedattn.wire.protocol import MAX_REASON_LENGTH
from fedattn.wire.requests import check_cached_keys
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import federation_pb2
from services.aggregator.federation import Federation
from services.aggregator.invitations import Invitations, left
from services.aggregator.peer import Peer
from services.aggregator.registry import Node, NodeRegistry
from services.aggregator.sessions import Sessions

log = structlog.get_logger(__name__)

_MOVED = "it has joined anew"
_ELSEWHERE = "it is not joined at that aggregator any more"
_MAX_AWAY = 1 << 14
"""Sessions of other aggregators that nodes of this one have been invited to, the latest so many."""


@dataclass(slots=True)
class _Away:
    """A session of another aggregator that a node of this one has been invited to."""

    server: str
    has_answered: bool = False
    has_started: bool = False


class Roll:
    """Nodes come, speak and leave, here or elsewhere. Lives on the event loop.

    A node that is joined here speaks on its control stream, and what it says of a session goes to
    the aggregator that invited it to it. For one that is joined elsewhere its aggregator speaks.

    Args:
        nodes: all that are joined.
        invitations: told what nodes answer.
        sessions: told who cannot go on.
        federation: the other aggregators.
    """

    def __init__(
        self,
        nodes: NodeRegistry,
        invitations: Invitations,
        sessions: Sessions,
        federation: Federation,
    ) -> None:
        self._nodes, self._invitations, self._sessions = nodes, invitations, sessions
        self._federation = federation
        self._away: LRUCache[tuple[str, str], _Away] = LRUCache(_MAX_AWAY)
        """By node and session."""

    # -- nodes of this aggregator ----------------------------------------------------------------

    async def join(self, message: pb.Join) -> tuple[Node, str]:
        """Admit a node here; the node, and the token that proves a caller to be it.

        Raises:
            DuplicateNodeError: a node of that id is joined, here or elsewhere.
            FedAttnError: as `NodeRegistry.join`.
        """
        known = self._nodes.find(message.node_id)
        if known is not None and known.home is not None:
            await self._check_gone(known, known.home)
        token = secrets.token_hex(16)
        before = self._nodes.find(message.node_id)
        node = self._nodes.join(message, token)
        if before is not None:
            self._tell_left(before, _MOVED)
        self._federation.announce(node)
        return node, token

    async def _check_gone(self, node: Node, home: Peer) -> None:
        """A dead aggregator cannot say that a node has left, and a living one would have."""
        if await self._federation.asks(home, node.node_id):
            raise DuplicateNodeError(
                f"a node {node.node_id!r} is joined already, at aggregator {home.name}; give each "
                f"node an id of its own, or wait until the lost one is noticed"
            )

    def hear(self, node: Node) -> bool:
        """A node that was joined here lives; whether it is joined here still."""
        self._nodes.hear(node)
        return self._nodes.find(node.node_id) is node

    def announce(self, node: Node) -> None:
        """A node that is joined here said how it is."""
        self._federation.announce(node)

    def leave(self, node: Node, reason: str) -> None:
        """A node that was joined here has left; told once, with the first reason that is known."""
        reason = reason or node.end_reason or self._nodes.why_broken(node)
        if self._nodes.leave(node, reason):
            log.info("node_left", node=node.node_id, reason=reason)
            self._federation.withdraw(node)
            self._tell_left(node, reason)

    def take_reply(self, node: Node, reply: pb.InviteReply) -> None:
        """A node that is joined here answers an invitation, or says that it cannot go on."""
        key = node.node_id, reply.session_id
        away = self._away.get(key)
        if away is None:
            self._take_reply(node, reply)
        elif reply.HasField("decline"):  # its last word
            del self._away[key]
            self._write(away.server, node.node_id, reply=reply)
        elif not away.has_answered:
            away.has_answered = True
            self._write(away.server, node.node_id, reply=reply)

    def _take_reply(self, node: Node, reply: pb.InviteReply) -> None:
        self._invitations.answer(node.node_id, reply)
        if reply.HasField("decline"):
            reason = reply.decline.message[:MAX_REASON_LENGTH]
            error = error_from_code(reply.decline.code, reason)
            self._sessions.note_decline(node, reply.session_id, error)

    def _tell_left(self, node: Node, reason: str) -> None:
        self._invitations.leave(node.node_id, reason)
        self._sessions.note_left(node, reason)

    # -- what other aggregators say --------------------------------------------------------------

    def seen(self, peer: Peer, entry: federation_pb2.NodeEntry) -> None:
        """A node is joined at another aggregator, or has changed there.

        If it is joined here too, it has one connection at most that lives: the latest.
        """
        known = self._nodes.find(entry.join.node_id)
        is_here = known is not None and known.home is None
        if known is not None and is_here and self._nodes.joined_for_s(known) < entry.joined_for_s:
            log.info("older_entry_ignored", node=known.node_id, aggregator=peer.name)
            return
        try:
            node, before = self._nodes.join_far(peer, entry, self._send)
        except FedAttnError as error:
            log.warning("entry_refused", aggregator=peer.name, error=str(error))
            return
        if before is not None:
            self._tell_left(before, _MOVED)
            if before.home is None:
                log.warning("node_moved", node=node.node_id, aggregator=peer.name)
                self._federation.withdraw(before)
                before.end(_MOVED)  # and so its stream here

    def gone(self, peer: Peer, node_id: str) -> None:
        """A node has left another aggregator."""
        node = self._nodes.find(node_id)
        if node is not None and node.home is not None and node.home.name == peer.name:
            reason = f"it left aggregator {peer.name}"
            if self._nodes.leave(node, reason):
                self._tell_left(node, reason)

    def lost(self, peer: Peer) -> None:
        """An aggregator cannot be heard: its nodes do not answer, and its sessions do not begin.

        Sessions that have begun go on, with nodes of both: their rows take another way.
        """
        reason = f"aggregator {peer.name} cannot be heard any more"
        for far in self._nodes.all():
            if far.home is not None and far.home.name == peer.name:
                self._nodes.leave(far, reason)
                self._invitations.leave(far.node_id, reason)
        ended = {key: one for key, one in self._away.items() if one.server == peer.name}
        for (node_id, session_id), away in ended.items():
            del self._away[node_id, session_id]
            member = self._nodes.find(node_id)
            if away.has_started:
                continue  # its own stream tells it how that goes on
            if member is not None and member.home is None:
                cancel = pb.SessionCancel(session_id=session_id, reason=reason)
                member.send(pb.ControlResponse(cancel=cancel))

    def receive(self, letter: federation_pb2.Letter) -> None:
        """Another aggregator wrote."""
        node = self._nodes.find(letter.node_id)
        match letter.WhichOneof("body"):
            case "command":
                self._pass_on(node, letter)
            case "reply" if node is not None and node.home is not None:
                if node.home.name == letter.sender:
                    self._take_reply(node, letter.reply)
            case "lesson":
                self._learn(letter)
            case _:
                log.warning("letter_dropped", aggregator=letter.sender, node=letter.node_id)

    def holds(self, node_id: str) -> bool:
        """Whether a node is joined here."""
        node = self._nodes.find(node_id)
        return node is not None and node.home is None

    def joined(self) -> Collection[Node]:
        """All nodes that are joined here."""
        return self._nodes.here()

    def _pass_on(self, node: Node | None, letter: federation_pb2.Letter) -> None:
        """Give a command to a node that is joined here."""
        command = letter.command
        kind, is_here = command.WhichOneof("body"), node is not None and node.home is None
        if node is None or not is_here:
            if kind == "invite":
                gone = left(command.invite.session_id, _ELSEWHERE)
                self._write(letter.sender, letter.node_id, reply=gone)
            return
        match kind:
            case "invite":
                self._away[node.node_id, command.invite.session_id] = _Away(letter.sender)
            case "start":
                key = node.node_id, command.start.terms.session_id
                if (away := self._away.get(key)) is not None:
                    away.has_started = True
            case "cancel":
                self._away.pop((node.node_id, command.cancel.session_id), None)
            case _:
                log.warning(
                    "letter_dropped", aggregator=letter.sender, node=node.node_id, kind=kind
                )
                return
        node.send(command)

    def _learn(self, letter: federation_pb2.Letter) -> None:
        try:
            check_cached_keys(letter.lesson.clean_keys, MAX_MEMBERS)
        except FedAttnError as error:
            log.warning("letter_dropped", aggregator=letter.sender, error=str(error))
            return
        self._sessions.learn(letter.lesson.clean_keys)

    def _send(self, node: Node, command: pb.ControlResponse) -> None:
        """Send a command to a node that is joined elsewhere."""
        if node.home is not None:
            self._write(node.home.name, node.node_id, command=command)

    def _write(
        self,
        receiver: str,
        node_id: str,
        command: pb.ControlResponse | None = None,
        reply: pb.InviteReply | None = None,
    ) -> None:
        letter = federation_pb2.Letter(node_id=node_id, command=command, reply=reply)
        self._federation.write(receiver, letter)
