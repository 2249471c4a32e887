"""What one aggregator makes of the directory, whatever comes in whatever order."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from fedattn.wire.protocol import PROTOCOL_VERSION
from fedattn.wire.v1 import federation_pb2 as pb
from fedattn.wire.v1.aggregator_pb2 import AggregatorAddress, Join
from services.aggregator.cluster.roster import Roster, entry_key, lease_key
from services.aggregator.peer import Peer

B = Peer("b", "10.0.0.2:50051")


@dataclass
class Told:
    """What is joined elsewhere, by what it has been told."""

    nodes: dict[str, str] = field(default_factory=dict)
    lost_peers: list[str] = field(default_factory=list)

    def seen(self, peer: Peer, entry: pb.NodeEntry) -> None:
        self.nodes[entry.join.node_id] = peer.name

    def gone(self, peer: Peer, node_id: str) -> None:
        if self.nodes.get(node_id) == peer.name:
            del self.nodes[node_id]

    def lost(self, peer: Peer) -> None:
        self.nodes = {name: home for name, home in self.nodes.items() if home != peer.name}
        self.lost_peers.append(peer.name)


class Directory:
    """A roster, its clock, and what `b` writes."""

    def __init__(self) -> None:
        self.now, self.told = 0.0, Told()
        self.roster = Roster("a", 3.0, lambda: self.now)
        self.roster.told = self.told  # type: ignore[assignment]

    def lease(self, epoch: str = "1", name: str = "b", **changes: object) -> None:
        address = AggregatorAddress(name=name, address=str(changes.get("address", B.address)))
        version = int(str(changes.get("version", PROTOCOL_VERSION)))
        lease = pb.AggregatorLease(protocol_version=version, aggregator=address, epoch=epoch)
        self.roster.take(lease_key(str(changes.get("key", name))), lease.SerializeToString())

    def entry(self, node_id: str, epoch: str = "1", name: str = "b") -> None:
        entry = pb.NodeEntry(aggregator=name, epoch=epoch, join=Join(node_id=node_id))
        self.roster.take(entry_key(name, node_id), entry.SerializeToString())

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.roster.look()


def test_a_node_counts_once_its_aggregator_lives_in_either_order() -> None:
    directory = Directory()
    directory.entry("early")
    assert (directory.told.nodes, directory.roster.living()) == ({}, [])
    directory.lease()
    directory.entry("late")
    assert directory.told.nodes == {"early": "b", "late": "b"}
    assert directory.roster.find("b") == B


def test_silence_ends_an_aggregator_and_its_nodes_and_a_word_brings_them_back() -> None:
    directory = Directory()
    directory.entry("n")
    directory.lease()
    directory.pass_time(2.9)
    assert directory.told.nodes == {"n": "b"}
    directory.pass_time(0.2)
    assert (directory.told.nodes, directory.told.lost_peers) == ({}, ["b"])
    directory.lease()
    assert directory.told.nodes == {"n": "b"}


def test_entries_of_an_earlier_epoch_do_not_count() -> None:
    directory = Directory()
    directory.entry("old")
    directory.lease()
    directory.entry("new", epoch="2")
    directory.lease("2")
    assert directory.told.nodes == {"new": "b"}


def test_an_aggregator_that_withdraws_is_gone_at_once() -> None:
    directory = Directory()
    directory.entry("n")
    directory.lease()
    directory.roster.take(lease_key("b"), None)
    assert (directory.told.nodes, directory.roster.living()) == ({}, [])


def test_what_a_dead_aggregator_wrote_is_forgotten() -> None:
    directory = Directory()
    directory.entry("n")
    directory.lease()
    directory.pass_time(200)
    directory.lease()
    assert directory.told.nodes == {}


def test_own_keys_other_versions_and_forged_ones_are_dropped() -> None:
    directory = Directory()
    directory.lease(name="a")
    directory.lease(version=PROTOCOL_VERSION + 1)
    directory.lease(name="c", key="b")  # written under the key of another
    directory.lease(address="no address")
    directory.roster.take("node.b.zz", b"")
    directory.roster.take("else", b"")
    assert directory.roster.living() == []


@given(st.text(max_size=40), st.one_of(st.none(), st.binary(max_size=80)))
def test_nothing_that_comes_raises(key: str, value: bytes | None) -> None:
    roster = Directory().roster
    for prefix in ("", "aggregator.", "node.b.", "node."):
        roster.take(prefix + key, value)


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("lease"), st.sampled_from("bc"), st.sampled_from("12")),
        st.tuples(
            st.just("entry"), st.sampled_from("bc"), st.sampled_from("12"), st.sampled_from("xy")
        ),
        st.tuples(st.just("leave"), st.sampled_from("bc"), st.sampled_from("xy")),
        st.tuples(st.just("withdraw"), st.sampled_from("bc")),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 3.0, 200.0])),
        st.tuples(st.just("forget")),
    )
)


@given(_STEPS)
def test_nobody_is_joined_at_an_aggregator_that_does_not_live(steps: list[tuple[str, ...]]) -> None:
    directory = Directory()
    for kind, *rest in steps:
        match kind:
            case "lease":
                directory.lease(rest[1], rest[0])
            case "entry":
                directory.entry(rest[2], rest[1], rest[0])
            case "leave":
                directory.roster.take(entry_key(rest[0], rest[1]), None)
            case "withdraw":
                directory.roster.take(lease_key(rest[0]), None)
            case "wait":
                directory.pass_time(float(rest[0]))
            case "forget":
                directory.roster.forget()
        living = {one.name for one in directory.roster.living()}
        assert set(directory.told.nodes.values()) <= living
