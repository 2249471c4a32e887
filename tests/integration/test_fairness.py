"""Nobody spoils it for all: greedy, silent and dripping members, and tokens in wrong hands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from fedattn.core.errors import FedAttnError, InternalError
from fedattn.core.node_id import AGGREGATOR
from fedattn.wire.status import error_from_rpc
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.aggregator.settings import AggregatorSettings
from tests.harness.identities import certificates_of
from tests.harness.raw import (
    RawNode,
    done,
    edited,
    frame_chunks,
    hello,
    open_request,
    raw_node,
    send_all,
)
from tests.harness.runners import running_aggregator


def settings(**changes: Any) -> AggregatorSettings:
    quick: dict[str, Any] = {
        "invite_timeout_s": 1.0,
        "progress_timeout_s": 1.0,
        "stall_timeout_s": 0.1,
    }
    return AggregatorSettings(listen="127.0.0.1:0", grace_s=0, **{**quick, **changes})


@asynccontextmanager
async def network(
    *names: str, is_sealed: bool = False, **changes: Any
) -> AsyncIterator[list[RawNode]]:
    """Joined nodes of these names and a publisher behind them."""
    own = certificates_of(AGGREGATOR) if is_sealed else None
    async with running_aggregator(settings(**changes), own) as address:
        async with nodes_at(address, *names, "publisher", is_sealed=is_sealed) as nodes:
            yield nodes


@asynccontextmanager
async def nodes_at(address: str, *names: str, is_sealed: bool) -> AsyncIterator[list[RawNode]]:
    if not names:
        yield []
        return
    first, *others = names
    own = certificates_of(first) if is_sealed else None
    async with (
        raw_node(address, first, own) as node,
        nodes_at(address, *others, is_sealed=is_sealed) as following,
    ):
        yield [node, *following]


def opening(publisher: RawNode, **changes: object) -> pb.OpenSessionRequest:
    request = open_request(node_token=publisher.token, **changes)
    return edited(request, lambda asked: setattr(asked, "node_id", publisher.node_id))


async def open_session(
    publisher: RawNode, *accepting: RawNode, **changes: object
) -> pb.OpenSessionResponse:
    """A session that these nodes accept, with 3 tokens each."""
    replies = [asyncio.create_task(node.accept(3)) for node in accepting]
    try:
        return await publisher.stub.OpenSession(opening(publisher, **changes))
    finally:
        for reply in replies:
            reply.cancel()


async def run_session(publisher: RawNode, *accepting: RawNode) -> pb.OpenSessionResponse:
    """A session from its opening to its report, in which these nodes do their part."""
    response = await open_session(publisher, *accepting)
    last = publisher.stub.Exchange(send_all([hello(response.start), done()]))
    for node in accepting:
        start = await node.started()
        sent = [one for layer in (1, 2) for one in frame_chunks(start, node.node_id, layer)]
        await anext(aiter(node.stub.Exchange(send_all([hello(start), *sent, done()]))), None)
    assert [answer async for answer in last][-1].HasField("report")
    return response


async def cancelled(node: RawNode) -> None:
    """Pass over an invitation of which nothing came."""
    while not (await node.commands.get()).HasField("cancel"):
        pass


async def failure_of(call: object) -> FedAttnError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return error_from_rpc(caught.value, InternalError("unreachable"))


def reasons(response: pb.OpenSessionResponse) -> dict[str, str]:
    """Why nodes take no part."""
    return {one.node_id: one.detail for one in response.excluded}


async def test_tokens_work_only_from_their_nodes_certificate() -> None:
    async with network("a", is_sealed=True) as (a, publisher):
        stolen = pb.OpenSessionRequest()
        stolen.CopyFrom(opening(publisher))
        assert (await failure_of(a.stub.OpenSession(stolen))).code == "identity_mismatch"
        listing = pb.ListNodesRequest(node_id="publisher", node_token=publisher.token)
        assert (await failure_of(a.stub.ListNodes(listing))).code == "identity_mismatch"

        response = await open_session(publisher, a)
        start = await a.started()
        for thief, owner in ((publisher, start), (a, response.start)):
            call = thief.stub.Exchange(send_all([hello(owner)]))
            assert (await failure_of(call.read())).code == "identity_mismatch"
        sent = [*frame_chunks(start, "a", 1), *frame_chunks(start, "a", 2)]
        upload = a.stub.Exchange(send_all([hello(start), *sent, done()]))
        assert [answer async for answer in upload] == []


async def listed(publisher: RawNode) -> dict[str, pb.NodeInfo]:
    """The aggregator's listing, by id."""
    request = pb.ListNodesRequest(node_id=publisher.node_id, node_token=publisher.token)
    return {node.node_id: node for node in (await publisher.stub.ListNodes(request)).nodes}


async def test_node_that_does_not_answer_twice_is_asked_again_only_by_name() -> None:
    async with network("a", "mute") as (a, mute, publisher):
        for state in (pb.NODE_STATE_LATE, pb.NODE_STATE_RESTING):
            left_out = reasons(await run_session(publisher, a))
            assert left_out == {"mute": "mute did not answer within 1 s"}
            await cancelled(mute)
            node = (await listed(publisher))["mute"]
            assert (node.state, node.state_reason) == (state, "it did not answer within 1 s")
        assert node.rests_for_s > 0
        third = reasons(await run_session(publisher, a))
        assert "it did not answer within 1 s" in third["mute"]
        assert "go without it for another" in third["mute"]
        assert mute.commands.empty()
        named = await open_session(publisher, a, mute, contributors=["a", "mute"])
        assert [one.node_id for one in named.start.terms.members][:2] == ["a", "mute"]


async def test_late_node_is_good_again_once_it_did_its_part() -> None:
    async with network("a", "b") as (a, b, publisher):
        assert reasons(await run_session(publisher, b)).keys() == {"a"}
        await cancelled(a)
        assert (await listed(publisher))["a"].state == pb.NODE_STATE_LATE
        await run_session(publisher, a, b)
        assert (await listed(publisher))["a"].state == pb.NODE_STATE_GOOD


async def test_impatient_publisher_puts_no_blame_on_others() -> None:
    async with network("a", "mute") as (a, _, publisher):
        await failure_of(publisher.stub.OpenSession(opening(publisher, deadline_s=0.01)))
        await cancelled(a)
        second = reasons(await run_session(publisher, a))
        assert second == {"mute": "mute did not answer within 1 s"}


async def test_node_is_asked_in_spite_of_its_pause_if_nobody_else_is_there() -> None:
    async with network("a") as (a, publisher):
        error = await failure_of(publisher.stub.OpenSession(opening(publisher)))
        assert "a did not answer" in str(error)
        assert (await a.commands.get()).HasField("invite")
        response = await open_session(publisher, a)
        assert [one.node_id for one in response.start.terms.members] == ["a", "publisher"]


async def drip(start: pb.SessionStart, node_id: str) -> AsyncIterator[pb.ExchangeRequest]:
    """The head of a frame and then a byte at a time."""
    (whole,) = frame_chunks(start, node_id, 1)
    data = whole.chunk.data
    yield hello(start)
    for begin, end in ((0, 100), *((i, i + 1) for i in range(100, len(data)))):
        piece = pb.ExchangeRequest(chunk=whole.chunk)
        piece.chunk.offset, piece.chunk.data = begin, data[begin:end]
        yield piece
        await asyncio.sleep(0.05)


async def test_dripping_member_is_left_out_named_and_late() -> None:
    async with network("a", "drip", min_bytes_per_s=1 << 20) as (a, dripping, publisher):
        response = await open_session(publisher, a, dripping)
        start, is_lost = await a.started(), asyncio.Event()
        layers = [one for layer in (1, 2) for one in frame_chunks(start, "a", layer)]
        good = a.stub.Exchange(send_all([hello(start), *layers, done()]))
        slow = dripping.stub.Exchange(drip(await dripping.started(), "drip"))

        async def requests() -> AsyncIterator[pb.ExchangeRequest]:
            yield hello(response.start)
            await is_lost.wait()
            yield done()

        answers: list[pb.ExchangeResponse] = []
        async for answer in publisher.stub.Exchange(requests()):
            answers.append(answer)
            if answer.HasField("lost"):
                is_lost.set()
        slow.cancel()
        good.cancel()
        by_id = {member.node_id: member for member in answers[-1].report.members}
        assert by_id["drip"].state == session_pb2.OUTCOME_LOST
        assert "it was slower than 1.04858e+06 bytes a second" in by_id["drip"].detail
        assert by_id["drip"].missing_from_layer == 1
        assert by_id["a"].state == session_pb2.OUTCOME_COMPLETE
        assert "slower than" in (await listed(publisher))["drip"].state_reason


async def test_eight_sessions_of_a_greedy_member_leave_room_for_others() -> None:
    async with network("a", "greedy", max_sessions=4, invite_timeout_s=30) as (
        a,
        greedy,
        publisher,
    ):
        calls = [
            asyncio.ensure_future(greedy.stub.OpenSession(opening(greedy, contributors=["a"])))
            for _ in range(8)
        ]
        for _ in range(2):
            await a.commands.get()
        refused, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        while len(refused) < 6:
            refused, _ = await asyncio.wait(calls, timeout=0.01)
        for call in refused:
            assert "kept for others" in str(await failure_of(call))
        response = await open_session(publisher, a, contributors=["a"])
        assert response.start.terms.members[0].node_id == "a"
        for call in calls:
            call.cancel()


@pytest.mark.parametrize("num_honest", [1, 2])
async def test_claim_that_fills_the_window_costs_its_owner_alone(num_honest: int) -> None:
    names = ["a", "b"][:num_honest]
    async with network(*names, "greedy") as (*honest, greedy, publisher):
        claiming = asyncio.create_task(greedy.accept(60))
        response = await open_session(publisher, *honest)
        await claiming
        cancel = (await greedy.commands.get()).cancel
    assert [one.node_id for one in response.start.terms.members] == [*names, "publisher"]
    others = 3 * num_honest
    expected = f"claims 60 tokens, the most of {num_honest + 1} contributors, whose others claim"
    assert f"{expected} {others} together" in reasons(response)["greedy"]
    assert "claims 60 tokens" in cancel.reason


SHARE = "the publisher holds its share"


async def test_no_answer_goes_without_a_node_that_only_waits_for_its_publishers_own_sessions() -> (
    None
):
    async with network("a", "b") as (a, b, publisher):
        declining = asyncio.create_task(b.decline("rate_limited", SHARE))
        alone = await open_session(publisher, a)  # with nothing to wait for, it goes without
        assert SHARE in reasons(alone)["b"]
        await declining
        declining = asyncio.create_task(b.decline("node_busy", SHARE))
        busy = await open_session(publisher, a)  # with others, for all that is known
        assert SHARE in reasons(busy)["b"]
        await declining
        declining = asyncio.create_task(b.decline("rate_limited", SHARE))
        accepting = asyncio.create_task(a.accept(3))
        error = await failure_of(publisher.stub.OpenSession(opening(publisher)))
        assert (error.code, SHARE in str(error)) == ("rate_limited", True)
        await asyncio.gather(declining, accepting)
