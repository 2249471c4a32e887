"""Connections that the aggregator carries: bounds, order, ends."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from fedattn.core.errors import (
    IdentityMismatchError,
    InvalidRequestError,
    NodeBusyError,
    PolicyRefusedError,
    PublisherUnavailableError,
)
from fedattn.wire.protocol import MAX_TUNNEL_DATA, MAX_TUNNELS_OF_NODE
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.registry import NodeRegistry
from services.aggregator.tunnels import Tunnels
from tests.harness.raw import join_message

PIECE = b"x" * MAX_TUNNEL_DATA
Responses = AsyncGenerator[pb.TunnelResponse, None]


class Sender:
    """What one end sends; counts what has been read of it, and ends when told to."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.num_read = 0
        self.end = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[pb.TunnelRequest]:
        for piece in self.pieces:
            self.num_read += 1
            yield pb.TunnelRequest(data=piece)
        await self.end.wait()


class Network:
    """Tunnels to the nodes `a` and `b`, of which only `b` takes no queries."""

    def __init__(self, most: int = 100, answer_within_s: float = 60) -> None:
        self.nodes = NodeRegistry(10)
        for node_id in ("a", "b", "c"):
            message = join_message(node_id)
            message.publishes = node_id != "b"
            self.nodes.join(message)
        self.tunnels = Tunnels(self.nodes, most, answer_within_s)

    def open(self, sender: Sender, node_id: str = "a") -> Responses:
        return self.tunnels.serve_gateway(node_id, aiter(sender))

    async def answer(self, sender: Sender, caller: str = "a") -> Responses:
        node = self.nodes.find("a")
        assert node is not None
        call = await node.outbox.get()
        assert call is not None

        def check(node_id: str) -> None:
            if node_id != caller:
                raise IdentityMismatchError(node_id)

        return self.tunnels.serve_node(call.tunnel.token, aiter(sender), check)


THROUGH = b""
"""The first an end is told: the other is there."""


async def settle() -> None:
    """Let every task run until it waits for another."""
    for _ in range(100):
        await asyncio.sleep(0)


async def all_of(responses: Responses) -> list[bytes]:
    return [response.data async for response in responses]


async def test_bytes_go_both_ways_in_order_and_none_is_lost_at_the_end() -> None:
    network = Network()
    gateway, node = Sender(b"1", b"2", b"3"), Sender(b"4", b"5")
    to_gateway = asyncio.create_task(all_of(network.open(gateway)))
    await settle()
    to_node = await network.answer(node)
    first = await anext(to_node)
    await settle()
    gateway.end.set()
    await settle()  # all is over, but for what waits for the node
    assert await to_gateway == [THROUGH, b"4", b"5"]
    # what a gateway sends too soon is not lost either
    assert [first.data, *await all_of(to_node)] == [b"1", b"2", b"3", THROUGH]
    assert len(network.tunnels) == 0


async def test_who_takes_nothing_is_sent_no_more_than_a_few_pieces() -> None:
    network = Network()
    endless = Sender(*[PIECE] * 1000)
    to_gateway = network.open(Sender())
    waiting = asyncio.create_task(anext(to_gateway))
    await settle()
    to_node = await network.answer(endless)
    node = asyncio.create_task(anext(to_node))
    assert (await waiting).data == THROUGH
    assert (await anext(to_gateway)).data == PIECE
    await settle()  # nobody takes a second one
    assert endless.num_read == 4
    for _ in range(10):
        await anext(to_gateway)
    await settle()
    assert endless.num_read == 14
    await to_gateway.aclose()
    assert (await node).data == THROUGH
    assert await all_of(to_node) == []


async def test_node_that_leaves_ends_its_connections_and_no_others() -> None:
    network = Network()
    lost = asyncio.create_task(all_of(network.open(Sender())))
    other = asyncio.create_task(all_of(network.open(Sender(), "c")))
    await settle()
    node = network.nodes.find("a")
    assert node is not None
    network.tunnels.leave(node)
    with pytest.raises(PublisherUnavailableError, match="node a has left"):
        await lost
    await settle()
    assert not other.done()
    network.tunnels.close()
    assert await other == []


async def test_node_that_does_not_take_the_connection_is_named() -> None:
    network = Network(answer_within_s=0)
    with pytest.raises(PublisherUnavailableError, match="node a did not take the connection"):
        await all_of(network.open(Sender()))


async def test_only_the_node_it_is_for_takes_a_connection_and_once() -> None:
    network = Network()
    opened = asyncio.create_task(all_of(network.open(Sender())))
    await settle()
    thief = await network.answer(Sender(), caller="c")
    with pytest.raises(IdentityMismatchError):
        await anext(thief)
    token = next(iter(network.tunnels._open))
    first = network.tunnels.serve_node(token, aiter(Sender()), lambda _: None)
    taken = asyncio.create_task(all_of(first))
    await settle()
    for wrong in (token, "0" * 32):
        with pytest.raises(InvalidRequestError, match="no gateway waits for that"):
            await anext(network.tunnels.serve_node(wrong, aiter(Sender()), lambda _: None))
    network.tunnels.close()
    assert (await opened, await taken) == ([THROUGH], [THROUGH])


@pytest.mark.parametrize("piece", [b"", PIECE + b"x"])
async def test_pieces_of_a_wrong_size_end_the_connection(piece: bytes) -> None:
    network = Network()
    with pytest.raises(InvalidRequestError, match=f"got {len(piece)}"):
        await all_of(network.open(Sender(piece)))


async def test_connections_are_bounded_by_node_and_by_aggregator() -> None:
    network = Network(most=MAX_TUNNELS_OF_NODE + 1)
    opened = [
        asyncio.create_task(all_of(network.open(Sender()))) for _ in range(MAX_TUNNELS_OF_NODE)
    ]
    await settle()
    with pytest.raises(NodeBusyError, match="node a holds 8 connections"):
        await anext(network.open(Sender()))
    opened.append(asyncio.create_task(all_of(network.open(Sender(), "c"))))
    await settle()
    with pytest.raises(NodeBusyError, match="carries 9 connections"):
        await anext(network.open(Sender(), "c"))
    network.tunnels.close()
    await asyncio.gather(*opened)
    assert len(network.tunnels) == 0


async def test_connection_is_refused_where_nobody_takes_queries() -> None:
    network = Network()
    with pytest.raises(PublisherUnavailableError, match="'z' is not joined"):
        await anext(network.open(Sender(), "z"))
    with pytest.raises(PolicyRefusedError, match="node b takes no queries"):
        await anext(network.open(Sender(), "b"))
