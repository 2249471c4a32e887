"""What passes between the nodes of one aggregator and others: who moves, and which letters go."""

from fedattn.core.errors import FedAttnError
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1.federation_pb2 import Letter, NodeEntry
from services.aggregator.federation import Alone
from services.aggregator.peer import Peer
from services.aggregator.registry import Node, NodeRegistry
from services.aggregator.roll import Roll
from tests.harness.raw import join_message

B = Peer("b", "10.0.0.2:50051")
SESSION = "ab" * 16


class Others(Alone):
    """Remembers what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.announced: list[str] = []
        self.withdrawn: list[str] = []
        self.letters: list[Letter] = []

    def announce(self, node: Node) -> None:
        self.announced.append(node.node_id)

    def withdraw(self, node: Node) -> None:
        self.withdrawn.append(node.node_id)

    def write(self, receiver: str, letter: Letter) -> None:
        self.letters.append(letter)


class Nobody:
    """In no session, and invited to none."""

    def leave(self, node_id: str, reason: str) -> None: ...
    def answer(self, node_id: str, reply: pb.InviteReply) -> None: ...
    def note_left(self, node: Node, reason: str) -> None: ...
    def note_decline(self, node: Node, session_id: str, error: FedAttnError) -> None: ...


class Here:
    """One aggregator of two, and its clock."""

    def __init__(self) -> None:
        self.now, self.others = 100.0, Others()
        self.nodes = NodeRegistry(10, silent_after_s=7.5, clock=lambda: self.now)
        self.roll = Roll(self.nodes, Nobody(), Nobody(), self.others)  # type: ignore[arg-type]

    def see(self, node_id: str, joined_for_s: float) -> None:
        entry = NodeEntry(join=join_message(node_id), token_digest=bytes(32))
        entry.joined_for_s = joined_for_s
        self.roll.seen(B, entry)

    def command(self, **command: object) -> None:
        said = pb.ControlResponse(**command)  # type: ignore[arg-type]
        self.roll.receive(Letter(sender="b", node_id="a", command=said))

    def replies(self) -> list[str | None]:
        return [one.reply.WhichOneof("answer") for one in self.others.letters]


async def test_a_node_that_joined_elsewhere_later_is_withdrawn_here() -> None:
    here = Here()
    node, _ = await here.roll.join(join_message("a"))
    here.now += 60
    here.see("a", joined_for_s=5)
    found = here.nodes.find("a")
    assert found is not None
    assert found.home == B
    assert here.others.withdrawn == ["a"]
    assert await node.outbox.get() is None  # its stream here ends
    assert not here.roll.hear(node)


async def test_what_others_still_say_of_a_node_that_came_here_later_moves_nobody() -> None:
    here = Here()
    node, _ = await here.roll.join(join_message("a"))
    here.now += 5
    here.see("a", joined_for_s=60)
    assert here.nodes.find("a") is node
    assert here.others.withdrawn == []


async def test_a_node_sends_one_answer_and_one_decline_to_a_session_elsewhere() -> None:
    here = Here()
    node, _ = await here.roll.join(join_message("a"))
    here.command(invite=pb.Invite(session_id=SESSION))
    for _ in range(3):
        reply = pb.InviteReply(session_id=SESSION)
        reply.statement.SetInParent()
        here.roll.take_reply(node, reply)
    for _ in range(3):
        here.roll.take_reply(node, pb.InviteReply(session_id=SESSION, decline=pb.Decline()))
    assert here.replies() == ["statement", "decline"]


async def test_only_sessions_that_wait_to_begin_are_cancelled_for_a_lost_aggregator() -> None:
    here = Here()
    node, _ = await here.roll.join(join_message("a"))
    for name in ("waits", "begun", "over"):
        here.command(invite=pb.Invite(session_id=name))
    start = pb.SessionStart()
    start.terms.session_id = "begun"
    here.command(start=start)
    here.command(cancel=pb.SessionCancel(session_id="over"))
    here.roll.lost(B)
    sent = [await node.outbox.get() for _ in range(6)]
    assert [one.cancel.session_id for one in sent if one and one.HasField("cancel")] == [
        "over",
        "waits",
    ]


async def test_a_node_elsewhere_is_not_called_silent_for_heartbeats_that_go_there() -> None:
    here = Here()
    here.see("a", joined_for_s=1)
    node = here.nodes.find("a")
    assert node is not None
    here.now += 19
    assert here.nodes.why_broken(node) == "its connection broke"


async def test_nothing_that_is_not_known_is_kept_of_a_node_and_told_to_others() -> None:
    unknown = b"\xfa\x7f\x03abc"  # field 2047
    here = Here()
    node, _ = await here.roll.join(
        pb.Join.FromString(join_message("a").SerializeToString() + unknown)
    )
    assert node.join == join_message("a")
