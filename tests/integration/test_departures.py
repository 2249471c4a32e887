"""Nodes that left: how each kind of end is told, and to whom."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from fedattn.core.errors import (
    FedAttnError,
    InternalError,
    ModelError,
    NoContributorsError,
    NothingToGiveError,
    ParticipantDepartedError,
    UnavailableError,
)
from fedattn.wire.status import error_from_rpc
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.aggregator.settings import AggregatorSettings
from services.participant.contribution import Contribution
from tests.harness.networks import Network, ask, failure
from tests.harness.raw import RawNode, frame_chunks, hold_open, open_request, raw_node
from tests.harness.runners import make_node, running_aggregator, running_participant


@pytest.fixture
async def address() -> AsyncIterator[str]:
    settings = AggregatorSettings(listen="127.0.0.1:0", grace_s=0, invite_timeout_s=3600)
    async with running_aggregator(settings) as where:
        yield where


async def departed(node: RawNode) -> dict[str, str]:
    """Why nodes left, as a gateway is told once any did."""
    while not (gone := (await node.stub.ListNodes(pb.ListNodesRequest())).departed):
        pass
    return {one.node.node_id: one.reason for one in gone}


async def refusal(publisher: RawNode, **changes: object) -> FedAttnError:
    opening = publisher.stub.OpenSession(open_request(node_token=publisher.token, **changes))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await opening
    return error_from_rpc(caught.value, InternalError("unreachable"))


async def test_who_says_goodbye_left_for_no_other_reason(address: str) -> None:
    async with raw_node(address, "publisher") as publisher, raw_node(address, "a") as a:
        await a.replies.put(pb.ControlRequest(goodbye=pb.Goodbye()))
        await a.left.wait()
        assert await departed(publisher) == {"a": "it said goodbye"}


async def test_a_broken_connection_and_a_bad_word_are_told_apart(address: str) -> None:
    async with raw_node(address, "publisher") as publisher:
        async with raw_node(address, "a"):
            pass
        assert await departed(publisher) == {"a": "its connection broke"}
        async with raw_node(address, "a") as a:
            await a.replies.put(pb.ControlRequest())
            await a.left.wait()
            gone = await departed(publisher)
        assert gone["a"].startswith("what it said was refused: expected a heartbeat")


async def test_silence_is_told_as_silence() -> None:
    settings = AggregatorSettings(listen="127.0.0.1:0", grace_s=0, heartbeat_interval_s=0.02)
    async with running_aggregator(settings) as address, raw_node(address, "a") as a:
        await a.left.wait()
        assert await departed(a) == {"a": "it fell silent: no heartbeat for 0.06 s"}


async def test_a_session_names_who_left_before_it(address: str) -> None:
    async with (
        raw_node(address, "publisher") as publisher,
        raw_node(address, "b") as b,
        raw_node(address, "stranger", fingerprint="0" * 64),
    ):
        async with raw_node(address, "a"):
            pass
        await departed(publisher)
        accepting = asyncio.create_task(b.accept(3))
        opened = await publisher.stub.OpenSession(open_request(node_token=publisher.token))
        await accepting
    by_id = {one.node_id: one for one in opened.excluded}
    assert by_id["stranger"].state == session_pb2.OUTCOME_EXCLUDED
    assert by_id["a"].state == session_pb2.OUTCOME_DEPARTED
    assert by_id["a"].detail == "a: left 0 s ago; its connection broke"


async def test_who_is_named_or_required_and_has_left_is_no_stranger(address: str) -> None:
    async with raw_node(address, "publisher") as publisher, raw_node(address, "b"):
        async with raw_node(address, "a"):
            pass
        await departed(publisher)
        for changes in ({"contributors": ["a"]}, {"require": ["a"]}):
            error = await refusal(publisher, **changes)
            assert isinstance(error, ParticipantDepartedError)
            assert str(error) == "a: left 0 s ago; its connection broke"


async def test_a_network_of_nobody_else_says_who_left_it(address: str) -> None:
    async with raw_node(address, "publisher") as publisher:
        async with raw_node(address, "a"):
            pass
        await departed(publisher)
        error = await refusal(publisher)
    assert isinstance(error, NoContributorsError)
    assert "joined (a: left 0 s ago; its connection broke); start one" in str(error)


async def test_a_required_node_that_declines_fails_the_query_and_another_does_not(
    address: str,
) -> None:
    async with (
        raw_node(address, "publisher") as publisher,
        raw_node(address, "a") as a,
        raw_node(address, "b") as b,
    ):
        declining = asyncio.create_task(a.decline("nothing_to_give", "nothing fits"))
        accepting = asyncio.create_task(b.accept(3))
        error = await refusal(publisher, require=["a"])
        await asyncio.gather(declining, accepting)
        assert isinstance(error, NothingToGiveError)
        assert str(error) == "a: nothing fits"
        declining = asyncio.create_task(a.decline("nothing_to_give", "nothing fits"))
        accepting = asyncio.create_task(b.accept(3))
        assert (await b.commands.get()).HasField("cancel")
        opening = open_request(node_token=publisher.token, require=["b", "publisher"])
        opened = await publisher.stub.OpenSession(opening)
        await asyncio.gather(declining, accepting)
    assert [member.node_id for member in opened.start.terms.members] == ["b", "publisher"]


async def test_who_was_lost_in_a_first_try_is_not_asked_again(address: str) -> None:
    async with (
        raw_node(address, "publisher") as publisher,
        raw_node(address, "a"),
        raw_node(address, "b") as b,
    ):
        accepting = asyncio.create_task(b.accept(3))
        opening = open_request(node_token=publisher.token, without=["a"])
        opened = await publisher.stub.OpenSession(opening)
        await accepting
    assert [one.detail for one in opened.excluded] == ["a: the first try lost it"]


async def test_an_exchange_that_breaks_is_no_stream_that_its_member_ended(address: str) -> None:
    async with raw_node(address, "publisher") as publisher, raw_node(address, "a") as a:
        accepting = asyncio.create_task(a.accept(3))
        opened = await publisher.stub.OpenSession(open_request(node_token=publisher.token))
        await accepting
        start = await a.started()
        received = publisher.stub.Exchange(hold_open(opened.start))
        upload = a.stub.Exchange(hold_open(start, *frame_chunks(start, "a", 1)))
        await received.read()  # its rows of a block: it is in
        upload.cancel()
        answer = await received.read()
        received.cancel()
    assert isinstance(answer, pb.ExchangeResponse)
    assert answer.lost.reason == "its connection broke"


def reports(events: list[Any]) -> dict[str, Any]:
    return {one.node_id: one for one in events[-1].result.report.members}


async def test_a_participant_that_stops_says_goodbye_and_answers_name_it(network: Network) -> None:
    node = make_node("extra", network.nodes["node-0"].prefiller.model, network.contexts["node-0"])
    async with running_participant(node, network.aggregator):
        pass
    events = await ask(network)
    assert events[0].opened.excluded[0].node_id == "extra"
    extra = reports(events)["extra"]
    assert extra.state == session_pb2.OUTCOME_DEPARTED
    assert extra.detail == "extra: left 0 s ago; it said goodbye"


@pytest.fixture
def _broken_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Node 0 fails while it computes."""
    compute = Contribution._compute

    def fail(contribution: Contribution) -> None:
        if contribution.node.node_id == "node-0":
            raise ModelError("its weights are gone")
        compute(contribution)

    monkeypatch.setattr(Contribution, "_compute", fail)


@pytest.mark.usefixtures("_broken_node")
async def test_a_contributors_own_reason_is_told_and_not_the_end_of_its_stream(
    network: Network,
) -> None:
    lost = reports(await ask(network))["node-0"]
    assert (lost.state, lost.detail) == (session_pb2.OUTCOME_LOST, "its weights are gone")


@pytest.mark.usefixtures("_broken_node")
async def test_a_query_fails_without_a_node_it_requires_and_not_without_another(
    network: Network,
) -> None:
    error = await failure(network, require=["node-0"])
    assert error.code == "not_enough_participants"
    assert "the query requires node-0, and node-0 is lost (its weights are gone)" in str(error)
    assert reports(await ask(network, require=["node-1"]))["node-0"].state == (
        session_pb2.OUTCOME_LOST
    )


@pytest.mark.usefixtures("_broken_node")
async def test_an_error_names_whom_a_second_try_could_go_without(network: Network) -> None:
    error = await failure(network, min_participants=3)
    assert isinstance(error, UnavailableError)
    assert error.lost == ("node-0",)
