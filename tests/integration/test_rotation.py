"""Certificates that change, or are revoked, while a network runs."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from fedattn.authority.office import Office
from fedattn.cli.certificates import init_certificates
from fedattn.core.errors import (
    AggregatorUnavailableError,
    CertificateRevokedError,
    FedAttnError,
    PublisherUnavailableError,
)
from fedattn.core.node_id import AGGREGATOR, GATEWAY
from fedattn.model.loading import LoadedModel
from fedattn.wire.certificate_folder import CertificateFolder
from fedattn.wire.status import error_from_rpc
from fedattn.wire.stubs import AggregatorStub
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import participant_pb2
from services.aggregator.__main__ import start_aggregator, stop_aggregator
from services.aggregator.settings import AggregatorSettings
from services.participant.app import Participant
from tests.harness.channels import direct_channel, way_to
from tests.harness.networks import query
from tests.harness.runners import make_node, running_participant
from tests.harness.tiny import words

NAMES = (AGGREGATOR, GATEWAY, "a", "desk")


class Network:
    """An aggregator, a contributor `a` and a publisher `desk`, each with a folder that changes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        init_certificates(root, ["a", "desk"], 30, report=lambda _: None)
        self.folders = {name: CertificateFolder(root / name) for name in NAMES}
        self.aggregator = ""
        self.contributor: Participant
        self.publisher: Participant

    def look(self) -> None:
        for folder in self.folders.values():
            folder.look()

    def renew(self) -> None:
        init_certificates(self.root, ["a", "desk"], 30, renew=True, report=lambda _: None)
        self.look()

    def revoke(self, name: str) -> None:
        Office.open(self.root).revoke(name)
        self.look()

    @asynccontextmanager
    async def ask(self) -> AsyncIterator[AsyncIterator[participant_pb2.QueryEvent]]:
        async with way_to("desk", self.aggregator, self.folders[GATEWAY]) as way:
            await way.connect()
            yield aiter(way.stub.Query(query()))

    async def answer(self) -> str:
        async with self.ask() as events:
            return [str(event.WhichOneof("body")) async for event in events][-1]


@asynccontextmanager
async def running_network(model: LoadedModel, folder: Path) -> AsyncIterator[Network]:
    network = Network(folder / "certs")
    settings = AggregatorSettings(listen="127.0.0.1:0", grace_s=0, heartbeat_interval_s=1)
    server, servicer = await start_aggregator(settings, network.folders[AGGREGATOR])
    network.aggregator = f"127.0.0.1:{server.port}"
    text = folder / "a.txt"
    text.write_text(words(5, 6))
    try:
        async with AsyncExitStack() as stack:
            node = make_node("a", model, text, certificates=network.folders["a"])
            network.contributor = await stack.enter_async_context(
                running_participant(node, network.aggregator)
            )
            node = make_node("desk", model, None, certificates=network.folders["desk"])
            node.publishes = True
            network.publisher = await stack.enter_async_context(
                running_participant(node, network.aggregator)
            )
            yield network
    finally:
        await stop_aggregator(server, servicer, 0)


async def rejoined(participant: Participant, folder: CertificateFolder) -> None:
    """Wait until a node is joined by the certificate of now."""
    control = participant.control
    while not (control.joined.is_set() and control._joined_with is folder.current):
        await control.joined.changed()


async def test_rotation_ends_no_query_and_counts_from_then_on(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with running_network(model, tmp_path) as network:
        async with network.ask() as events:
            first = await anext(events)
            network.renew()
            last = [event async for event in events][-1]
        assert first.WhichOneof("body") == "opened"
        assert last.WhichOneof("body") == "result"
        assert "a" in str(last.result.report)
        await rejoined(network.contributor, network.folders["a"])
        await rejoined(network.publisher, network.folders["desk"])
        assert await network.answer() == "result"


async def refusal_of_join(network: Network, name: str) -> FedAttnError:
    own = network.folders[name].current

    async def requests() -> AsyncIterator[pb.ControlRequest]:
        yield pb.ControlRequest(join=pb.Join(node_id=name))

    async with direct_channel(network.aggregator, own, peer=AGGREGATOR) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in AggregatorStub(channel).Control(requests()):
                pass
    return error_from_rpc(caught.value, AggregatorUnavailableError(""))


async def why_left(network: Network, name: str) -> str:
    own = network.folders[GATEWAY].current
    async with direct_channel(network.aggregator, own, peer=AGGREGATOR) as channel:
        listing = await AggregatorStub(channel).ListNodes(pb.ListNodesRequest())
    return next(one.reason for one in listing.departed if one.node.node_id == name)


async def test_revoked_node_is_put_out_and_stays_out(model: LoadedModel, tmp_path: Path) -> None:
    settings = AggregatorSettings(listen="127.0.0.1:0", grace_s=0)
    network = Network(tmp_path / "certs")
    server, servicer = await start_aggregator(settings, network.folders[AGGREGATOR])
    network.aggregator = f"127.0.0.1:{server.port}"
    node = make_node("a", model, None, certificates=network.folders["a"])
    try:
        with pytest.raises(CertificateRevokedError, match="CN=a bears a certificate"):  # noqa: PT012
            async with running_participant(node, network.aggregator) as participant:
                assert participant.control.joined.is_set()
                network.revoke("a")  # its process ends with the reason
                while participant.control.joined.is_set():
                    await participant.control.joined.changed()
        assert "CN=a bears a certificate that" in await why_left(network, "a")
        assert isinstance(await refusal_of_join(network, "a"), CertificateRevokedError)
        assert not isinstance(await refusal_of_join(network, "desk"), CertificateRevokedError)
    finally:
        await stop_aggregator(server, servicer, 0)


async def test_revoked_gateway_gets_no_answer_and_loses_the_one_that_runs(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with running_network(model, tmp_path) as network:
        async with network.ask() as events:
            await anext(events)
            network.revoke(GATEWAY)
            with pytest.raises(grpc.aio.AioRpcError):  # by the node, or with the connection
                async for _ in events:
                    pass
        with pytest.raises(CertificateRevokedError, match="CN=gateway bears a certificate"):
            await network.answer()


async def test_revoked_publisher_loses_the_query_that_runs(
    model: LoadedModel, tmp_path: Path
) -> None:
    with pytest.raises(CertificateRevokedError):  # its process ends with the reason  # noqa: PT012
        async with running_network(model, tmp_path) as network, network.ask() as events:
            await anext(events)
            network.revoke("desk")
            with pytest.raises(grpc.aio.AioRpcError):
                async for _ in events:
                    pass
            with pytest.raises(PublisherUnavailableError, match="node 'desk' is not joined"):
                await network.answer()
