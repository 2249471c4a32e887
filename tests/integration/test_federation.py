"""Several aggregators, one federation, a real NATS server."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from structlog.testing import capture_logs

from fedattn.core.node_id import AGGREGATOR, GATEWAY
from fedattn.model.loading import LoadedModel
from fedattn.rest.answers import QueryAnswer
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.v1 import participant_pb2 as pb
from fedattn.wire.v1.session_pb2 import OUTCOME_COMPLETE as COMPLETE
from fedattn.wire.v1.session_pb2 import OUTCOME_DEPARTED as DEPARTED
from gateway.callers import ANYONE
from gateway.limits import QueryLimits
from gateway.publishers import Publishers
from gateway.waiting import Patience
from services.participant.app import Participant
from services.participant.node import ParticipantNode
from tests.harness.channels import endpoint, way_to
from tests.harness.identities import certificates_of
from tests.harness.nats import BINARY, NO_NATS, FederatedAggregator, NatsServer, running_nats, until
from tests.harness.networks import query
from tests.harness.runners import make_node, running_participant
from tests.harness.tiny import tiny_model, words

pytestmark = pytest.mark.skipif(BINARY is None, reason=NO_NATS)

NODES = {"node-0": words(5, 6), "node-1": words(16, 7), "publisher": ""}


@dataclass
class Cluster:
    """Aggregators, and nodes that are joined at them in turn."""

    nats: NatsServer
    aggregators: list[FederatedAggregator]
    participants: dict[str, Participant] = field(default_factory=dict)
    nodes: dict[str, ParticipantNode] = field(default_factory=dict)
    homes: dict[str, int] = field(default_factory=dict)

    async def settled(self, names: set[str] | None = None, nodes: set[str] | None = None) -> None:
        names = names or {one.name for one in self.aggregators}
        nodes = nodes or set(NODES)
        await until(
            lambda: all(
                one.knows() == (names, nodes) for one in self.aggregators if one.name in names
            )
        )

    async def ask(self, at: str = "publisher", **changes: object) -> pb.QueryResult:
        """A question through the aggregator where the publisher is joined."""
        address = self.participants[at].control._aggregators.home.address
        own = certificates_of(GATEWAY)
        async with way_to(at, address, own) as way:
            events = [event async for event in way.stub.Query(query(**changes))]
        return events[-1].result


@asynccontextmanager
async def running_cluster(
    folder: Path, model: LoadedModel, homes: list[int], num_aggregators: int = 2
) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(running_nats(folder / "nats"))
        cluster = Cluster(nats, [])
        for number in range(num_aggregators):
            own = certificates_of(f"{AGGREGATOR}-{number}")
            one = FederatedAggregator(f"aggregator-{number}", nats.url, own)
            await one.start()
            stack.push_async_callback(one.stop)
            cluster.aggregators.append(one)
        for (node_id, text), home in zip(NODES.items(), homes, strict=True):
            path = folder / f"{node_id}.txt"
            path.write_text(text)
            own = certificates_of(node_id)
            node = make_node(node_id, model, path if text else None, certificates=own)
            node.publishes = not text
            order = cluster.aggregators[home:] + cluster.aggregators[:home]
            addresses = ",".join(one.address for one in order)
            participant = await stack.enter_async_context(running_participant(node, addresses))
            cluster.participants[node_id], cluster.nodes[node_id] = participant, node
        await cluster.settled()
        yield cluster


def outcomes(result: pb.QueryResult) -> dict[str, int]:
    return {member.node_id: member.state for member in result.report.members}


async def test_nodes_of_two_aggregators_answer_as_those_of_one_do(tmp_path: Path) -> None:
    model = tiny_model("llama")
    async with running_cluster(tmp_path, model, [0, 0, 0], num_aggregators=1) as alone:
        expected = await alone.ask()
    (tmp_path / "second").mkdir()
    async with running_cluster(tmp_path / "second", model, [0, 1, 0]) as cluster:
        results = [await cluster.ask() for _ in range(8)]
    assert {one.text for one in results} == {expected.text}
    assert outcomes(results[0]) == outcomes(expected)


async def test_sessions_are_shared_among_aggregators(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, tiny_model("llama"), [0, 1, 2], 3) as cluster:
        for _ in range(12):
            assert set(outcomes(await cluster.ask()).values()) == {COMPLETE}
        await until(lambda: sum(one.num_served() for one in cluster.aggregators) == 12)
        served = [one.num_served() for one in cluster.aggregators]
    assert sum(map(bool, served)) > 1  # all at one of three: once in 177,147


async def test_an_unknown_contributor_is_told_by_the_first_aggregator_that_is_asked(
    tmp_path: Path,
) -> None:
    async with running_cluster(tmp_path, tiny_model("llama"), [0, 1, 0]) as cluster:
        with capture_logs() as logs:
            for _ in range(8):  # half of them are sent on to the other aggregator
                with pytest.raises(grpc.aio.AioRpcError, match="'stranger' is not joined"):
                    await cluster.ask(contributors=["stranger"])
        assert "redirect_failed" not in {one["event"] for one in logs}


async def test_a_dead_aggregator_is_named_and_the_next_query_goes_on_without_it(
    tmp_path: Path,
) -> None:
    async with running_cluster(tmp_path, tiny_model("llama"), [0, 1, 2], 3) as cluster:
        await cluster.aggregators[1].kill()
        first = await cluster.ask()  # at once: nobody has noticed yet
        assert first.text
        await cluster.settled({"aggregator-0", "aggregator-2"})  # node-1 has gone to another
        for _ in range(4):
            assert set(outcomes(await cluster.ask()).values()) == {COMPLETE}


async def test_without_nats_nodes_of_one_aggregator_go_on_and_then_all(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, tiny_model("llama"), [0, 1, 0]) as cluster:
        await cluster.nats.kill()
        await until(
            lambda: (
                [one.knows() for one in cluster.aggregators]
                == [
                    ({"aggregator-0"}, {"node-0", "publisher"}),
                    ({"aggregator-1"}, {"node-1"}),
                ]
            )
        )
        assert outcomes(await cluster.ask()) == {
            "node-0": COMPLETE,
            "publisher": COMPLETE,
            "node-1": DEPARTED,
        }
        await cluster.nats.start()
        await cluster.settled()
        assert set(outcomes(await cluster.ask())) == set(NODES)


async def answer_of(publishers: Publishers) -> QueryAnswer:
    call = await publishers.start_query(ANYONE, None, query(), Patience(wait_s=30.0))
    try:
        *_, answer = [event async for event in call.events()]
    finally:
        call.close()
    assert isinstance(answer, QueryAnswer)
    return answer


async def test_the_gateway_finds_a_publisher_at_another_aggregator(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, tiny_model("llama"), [0, 0, 1]) as cluster:
        endpoints = [endpoint(one.address) for one in cluster.aggregators]
        own = certificates_of(GATEWAY)
        async with Publishers(
            Aggregators(endpoints, own), QueryLimits(at_once=4), certificates=own
        ) as publishers:
            for _ in range(2):
                answer = await answer_of(publishers)
                assert {one.node_id for one in answer.participants} == set(NODES)
            await cluster.aggregators[0].kill()  # where it asked so far
            await cluster.settled({"aggregator-1"})
            assert (await answer_of(publishers)).answer


async def test_a_query_follows_its_publisher_when_the_aggregator_is_lost(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, tiny_model("llama"), [1, 2, 0], 3) as cluster:
        endpoints = [endpoint(one.address) for one in cluster.aggregators[1:]]
        own = certificates_of(GATEWAY)
        async with Publishers(
            Aggregators(endpoints, own), QueryLimits(at_once=4), certificates=own
        ) as publishers:
            await answer_of(publishers)  # the way leads through the aggregator that dies
            await cluster.aggregators[0].kill()
            assert (await answer_of(publishers)).answer  # at once: the first that is asked


async def test_without_nats_a_gateway_finds_its_publisher_at_whichever_aggregator(
    tmp_path: Path,
) -> None:
    async with running_cluster(tmp_path, tiny_model("llama"), [0, 1, 1]) as cluster:
        endpoints = [endpoint(one.address) for one in cluster.aggregators]
        own = certificates_of(GATEWAY)
        await cluster.nats.kill()
        await until(lambda: cluster.aggregators[0].knows() == ({"aggregator-0"}, {"node-0"}))
        async with Publishers(
            Aggregators(endpoints, own), QueryLimits(at_once=4), "publisher", certificates=own
        ) as publishers:
            assert (await answer_of(publishers)).answer
