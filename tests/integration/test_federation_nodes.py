"""Aggregators of one federation and nodes by hand: who is joined, who serves, what is cut off."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from structlog.testing import capture_logs

from fedattn.authority.issuing import check_name
from fedattn.cli.network import free_port
from fedattn.core.errors import (
    AggregatorUnavailableError,
    InternalError,
    InvalidRequestError,
    UnknownParticipantError,
)
from fedattn.core.node_id import AGGREGATOR
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.status import error_from_rpc
from fedattn.wire.stubs import AggregatorStub
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1.federation_pb2 import Letter
from services.aggregator.__main__ import start_aggregator, stop_aggregator
from services.aggregator.peer import Peer
from services.aggregator.settings import AggregatorSettings
from tests.harness.channels import direct_channel, endpoint
from tests.harness.identities import certificates_of
from tests.harness.nats import (
    BINARY,
    NO_NATS,
    FederatedAggregator,
    NatsServer,
    running_nats,
    until,
)
from tests.harness.raw import RawNode, hello, open_request, raw_node, send_all

pytestmark = pytest.mark.skipif(BINARY is None, reason=NO_NATS)

CALM = {"heartbeat_interval_s": 60.0}
"""Nodes by hand say nothing of themselves."""


@asynccontextmanager
async def running_aggregators(*urls: str) -> AsyncIterator[list[FederatedAggregator]]:
    """One at each URL."""
    async with AsyncExitStack() as stack:
        found = []
        for number, url in enumerate(urls):
            own = certificates_of(f"{AGGREGATOR}-{number}")
            one = FederatedAggregator(f"aggregator-{number}", url, own, **CALM)
            await one.start()
            stack.push_async_callback(one.stop)
            found.append(one)
        yield found


@asynccontextmanager
async def node_at(aggregator: FederatedAggregator, node_id: str) -> AsyncIterator[RawNode]:
    async with raw_node(aggregator.address, node_id, certificates_of(node_id)) as node:
        yield node


async def all_know(aggregators: list[FederatedAggregator], *nodes: str) -> None:
    """Wait until these aggregators, and no others, know of these nodes, and of no others."""
    names = {one.name for one in aggregators}
    await until(lambda: all(one.knows() == (names, set(nodes)) for one in aggregators))


async def open_at(
    node: RawNode, stub: AggregatorStub, nonce: int = 0, **changes: object
) -> pb.OpenSessionResponse:
    """Ask for a session; which nonce says which aggregator serves it."""
    request = open_request(node_token=node.token, nonce=nonce.to_bytes(16, "big"), **changes)
    return await stub.OpenSession(request)


async def test_whoever_joins_leaves_or_moves_is_known_everywhere(tmp_path: Path) -> None:
    async with running_nats(tmp_path) as nats, running_aggregators(nats.url, nats.url) as both:
        async with node_at(both[0], "a"), node_at(both[1], "b") as b:
            await all_know(both, "a", "b")
            assert await b.listed() == ["a", "b"]
            with pytest.raises(grpc.aio.AioRpcError, match="joined already, at aggregator aggrega"):
                async with node_at(both[0], "b"):
                    pass
        await all_know(both)
        async with node_at(both[0], "b"):
            await all_know(both, "b")


async def test_a_session_is_served_where_the_hash_says_and_by_the_next_if_not(
    tmp_path: Path,
) -> None:
    urls = 3 * [""]
    async with (
        running_nats(tmp_path) as nats,
        running_aggregators(*(nats.url for _ in urls)) as all3,
    ):
        async with node_at(all3[0], "publisher") as publisher, node_at(all3[1], "a") as a:
            await all_know(all3, "publisher", "a")
            found = {}
            for nonce in range(32):
                opening = asyncio.create_task(open_at(publisher, publisher.stub, nonce))
                accepting = asyncio.create_task(a.accept(3))
                response = await opening
                accepting.cancel()
                found[nonce] = response.redirect.name or "aggregator-0"
            assert set(found.values()) == {one.name for one in all3}
            nonce = next(one for one, name in found.items() if name == "aggregator-2")
            unreachable = ["aggregator-2", "aggregator-1"]
            accepting = asyncio.create_task(a.accept(3))
            here = await open_at(publisher, publisher.stub, nonce, unreachable=unreachable)
            assert here.start.terms.session_id


async def test_a_contributor_elsewhere_is_invited_and_told_where_the_rows_go(
    tmp_path: Path,
) -> None:
    async with running_nats(tmp_path) as nats, running_aggregators(nats.url, nats.url) as both:
        async with node_at(both[0], "publisher") as publisher, node_at(both[0], "a") as a:
            await all_know(both, "publisher", "a")
            own = certificates_of("publisher")
            async with direct_channel(both[1].address, own, peer=AGGREGATOR) as channel:
                accepting = asyncio.create_task(a.accept(3))
                served = AggregatorStub(channel)
                opened = await open_at(publisher, served, redirected=True)
            start = await a.started()
            await accepting
            assert start.aggregator == both[1].address
            assert start.terms == opened.start.terms
            async with direct_channel(
                both[1].address, certificates_of("publisher"), peer=AGGREGATOR
            ) as channel:  # the token alone lets nobody in
                call = AggregatorStub(channel).Exchange(send_all([hello(start)]))
                with pytest.raises(grpc.aio.AioRpcError, match="expected the certificate of a"):
                    await call.read()


async def test_nodes_of_a_site_know_each_other_while_its_uplink_is_cut(tmp_path: Path) -> None:
    leaf_port = free_port()
    hub = NatsServer(
        tmp_path / "hub", f"leafnodes {{ listen: 127.0.0.1:{leaf_port} }}", domain="hub"
    )
    uplink = f'remotes: [{{ url: "nats-leaf://127.0.0.1:{leaf_port}" }}]'
    remote = f"leafnodes {{ {uplink}\n reconnect: 1 }}"
    site = NatsServer(tmp_path / "site", remote, domain="site")
    await hub.start()
    await site.start()
    try:
        async with AsyncExitStack() as stack:
            aggregators = []
            places = (("hub", "site", hub), ("site", "hub", site), ("site", "hub", site))
            for number, (own, other, server) in enumerate(places):
                one = FederatedAggregator(
                    f"aggregator-{number}",
                    server.url,
                    certificates_of(f"{AGGREGATOR}-{number}"),
                    nats_domain=own,
                    nats_domains=other,
                    **CALM,
                )
                await one.start()
                stack.push_async_callback(one.stop)
                aggregators.append(one)
            for number, node_id in enumerate(("a", "b", "c")):
                await stack.enter_async_context(node_at(aggregators[number], node_id))
            await all_know(aggregators, "a", "b", "c")
            await hub.kill()
            await all_know(aggregators[1:], "b", "c")
            await all_know(aggregators[:1], "a")
            await hub.start()
            await all_know(aggregators, "a", "b", "c")
    finally:
        await site.stop()
        await hub.stop()


async def test_an_aggregator_that_does_not_know_the_publisher_yet_is_of_no_use_to_it(
    tmp_path: Path,
) -> None:
    nowhere = f"nats://127.0.0.1:{free_port()}"
    async with running_nats(tmp_path) as nats, running_aggregators(nats.url, nowhere) as both:
        own = certificates_of("publisher")
        async with (
            node_at(both[0], "publisher") as publisher,
            direct_channel(both[1].address, own, peer=AGGREGATOR) as channel,
        ):
            for is_redirected, expected in (
                (True, AggregatorUnavailableError),
                (False, UnknownParticipantError),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await open_at(publisher, AggregatorStub(channel), redirected=is_redirected)
                error = error_from_rpc(caught.value, InternalError("out of reach"))
                assert type(error) is expected


async def test_a_second_aggregator_of_one_name_is_not_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_nats(tmp_path) as nats, running_aggregators(nats.url) as (first,):
        await first.federation.wait_connected()
        asked: list[str] = []
        monkeypatch.setattr(first.servicer.roll, "holds", asked.append)
        second = FederatedAggregator(first.name, nats.url, certificates_of(f"{AGGREGATOR}-0"))
        with capture_logs() as logs:
            await second.start()
            await until(lambda: len(asked) >= 3)
            await second.stop()
        assert [one["event"] for one in logs].count("name_taken") == 1
        assert first.federation.living() == (Peer(first.name, first.address),)


async def test_letters_of_strangers_and_letters_that_command_too_much_are_dropped(
    tmp_path: Path,
) -> None:
    async with running_nats(tmp_path) as nats, running_aggregators(nats.url) as (only,):
        async with node_at(only, "a") as a:
            await only.federation.wait_connected()
            welcome = pb.ControlResponse(welcome=pb.Welcome(heartbeat_interval_s=1))
            letter = Letter(sender="aggregator-7", node_id="a", command=welcome)
            with capture_logs() as logs:
                only.federation._take_letter(b"\xff")
                only.federation._take_letter(letter.SerializeToString())
                only.servicer.roll.receive(letter)
            assert [one["event"] for one in logs] == 3 * ["letter_dropped"]
            assert a.commands.empty()


async def test_no_certificate_of_a_participant_passes_for_an_aggregator() -> None:
    aggregators = Aggregators([endpoint("127.0.0.1:1")], certificates_of("b"))
    settings = AggregatorSettings(listen="127.0.0.1:0")
    server, servicer = await start_aggregator(settings, certificates_of("a"))
    with pytest.raises(AggregatorUnavailableError):
        await aggregators.at(f"127.0.0.1:{server.port}").reach(5)
    await stop_aggregator(server, servicer, 0)
    await aggregators.close()
    with pytest.raises(InvalidRequestError, match="would pass for the aggregator-1"):
        check_name("Aggregator-1")
