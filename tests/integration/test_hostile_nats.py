"""Somebody who is no aggregator can write to NATS: what it can do, and what it cannot."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from fedattn.cli.network import free_port
from fedattn.wire.protocol import PROTOCOL_VERSION
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1.federation_pb2 import AggregatorLease, Letter, NodeEntry
from fedattn.wire.v1.session_pb2 import OUTCOME_COMPLETE as COMPLETE
from services.aggregator.cluster.roster import entry_key, lease_key
from services.aggregator.peer import MAX_PEERS
from tests.harness.nats import BINARY, NO_NATS, until
from tests.harness.tiny import tiny_model
from tests.integration.test_federation import NODES, Cluster, outcomes, running_cluster

pytestmark = pytest.mark.skipif(BINARY is None, reason=NO_NATS)

LIAR, EPOCH = "aggregator-9", "e" * 32
_BEAT_S = 0.3


class Writer:
    """Writes leases of aggregators that are none, again and again, and what else it likes."""

    def __init__(self, client: Client) -> None:
        self.client, self.address = client, f"127.0.0.1:{free_port()}"
        self.names = [LIAR]
        self.letters: list[Letter] = []

    async def begin(self) -> None:
        self.directory = await self.client.jetstream().key_value("fedattn")

        async def take(message: Msg) -> None:
            self.letters.append(Letter.FromString(message.data))

        async def hold(message: Msg) -> None:
            await message.respond(b"held")

        await self.client.subscribe(f"fedattn.to.{LIAR}", cb=take)
        await self.client.subscribe(f"fedattn.ask.{LIAR}", cb=hold)

    async def beat(self) -> None:
        while True:
            await asyncio.gather(*map(self._write_lease, self.names))
            await asyncio.sleep(_BEAT_S)

    async def _write_lease(self, name: str) -> None:
        lease = AggregatorLease(
            protocol_version=PROTOCOL_VERSION,
            aggregator=pb.AggregatorAddress(name=name, address=self.address),
            epoch=EPOCH,
        )
        await self.directory.put(lease_key(name), lease.SerializeToString())

    async def claim(self, join: pb.Join) -> None:
        """Say that a node has joined the liar just now."""
        entry = NodeEntry(aggregator=LIAR, epoch=EPOCH, join=join, token_digest=bytes(32))
        key = entry_key(LIAR, join.node_id)
        await self.directory.put(key, entry.SerializeToString())

    async def send(self, **body: object) -> None:
        """Write to the only aggregator."""
        letter = Letter(sender=LIAR, **body)  # type: ignore[arg-type]
        await self.client.publish("fedattn.to.aggregator-0", letter.SerializeToString())


@asynccontextmanager
async def written_to(folder: Path) -> AsyncIterator[tuple[Cluster, Writer]]:
    """One aggregator with all nodes, and somebody at its NATS."""
    async with running_cluster(folder, tiny_model("llama"), [0, 0, 0], 1) as cluster:
        (only,) = cluster.aggregators
        await only.federation.wait_connected()
        client = await nats.connect(cluster.nats.url)
        writer = Writer(client)
        await writer.begin()
        beating = asyncio.create_task(writer.beat())
        try:
            await until(lambda: LIAR in only.knows()[0])
            yield cluster, writer
        finally:
            beating.cancel()
            await asyncio.wait({beating})
            await client.close()


def join_of(cluster: Cluster, node_id: str) -> pb.Join:
    """How a node introduced itself, under any name."""
    found = cluster.aggregators[0].servicer._nodes.find("node-0")
    assert found is not None
    join = pb.Join()
    join.CopyFrom(found.join)
    join.node_id = node_id
    return join


async def test_made_up_aggregators_take_time_and_no_session(tmp_path: Path) -> None:
    async with written_to(tmp_path) as (cluster, writer):
        writer.names += [f"made-up-{number}" for number in range(MAX_PEERS)]
        await until(lambda: len(cluster.aggregators[0].knows()[0]) == MAX_PEERS)
        for _ in range(3):
            assert set(outcomes(await cluster.ask()).values()) == {COMPLETE}


async def test_a_node_is_kept_out_for_as_long_as_somebody_lies_that_it_is_joined_elsewhere(
    tmp_path: Path,
) -> None:
    async with written_to(tmp_path) as (cluster, writer):
        await writer.claim(join_of(cluster, "node-0"))
        await until(lambda: not cluster.participants["node-0"].control.joined.is_set())
        assert not cluster.aggregators[0].servicer.roll.holds("node-0")
        await writer.directory.delete(entry_key(LIAR, "node-0"))
        await until(lambda: cluster.aggregators[0].servicer.roll.holds("node-0"))


async def test_a_made_up_node_gives_nothing_to_an_answer(tmp_path: Path) -> None:
    async with written_to(tmp_path) as (cluster, writer):
        expected = await cluster.ask()
        await writer.claim(join_of(cluster, "stranger"))
        await until(lambda: "stranger" in cluster.aggregators[0].knows()[1])

        async def accept() -> None:
            await until(lambda: writer.letters)
            reply = pb.InviteReply(session_id=writer.letters[0].command.invite.session_id)
            reply.statement.payload = b"yes"
            await writer.send(node_id="stranger", reply=reply)

        answer, _ = await asyncio.gather(cluster.ask(), accept())
    assert answer.text == expected.text
    assert {name for name, how in outcomes(answer).items() if how == COMPLETE} == set(NODES)


async def test_a_node_takes_no_invitation_that_no_publisher_has_signed(tmp_path: Path) -> None:
    async with written_to(tmp_path) as (_, writer):
        await writer.send(
            node_id="node-0", command=pb.ControlResponse(invite=pb.Invite(session_id="5" * 32))
        )
        await until(lambda: writer.letters)
        (letter,) = writer.letters
        assert letter.reply.WhichOneof("answer") == "decline"


async def test_nobody_tells_a_node_who_it_is_or_opens_a_way_to_it(tmp_path: Path) -> None:
    async with written_to(tmp_path) as (cluster, writer):
        token = cluster.nodes["node-0"].token
        welcome = pb.Welcome(heartbeat_interval_s=1, node_token="another")
        await writer.send(node_id="node-0", command=pb.ControlResponse(welcome=welcome))
        await writer.send(node_id="publisher", command=pb.ControlResponse(tunnel=pb.TunnelCall()))
        assert set(outcomes(await cluster.ask()).values()) == {COMPLETE}
        assert cluster.nodes["node-0"].token == token
