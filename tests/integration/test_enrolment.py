"""Nodes get certificates from the authority, renew them, lose them: over real sockets."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from structlog.testing import capture_logs

from fedattn.authority.office import Office
from fedattn.authority.service import MAX_BODY_SIZE, create_app
from fedattn.cli.certificates import init_certificates
from fedattn.core.address import HostPort
from fedattn.core.errors import (
    AggregatorUnavailableError,
    AuthorityUnavailableError,
    CertificateRevokedError,
    ConfigurationError,
    FedAttnError,
    IdentityMismatchError,
    InvalidRequestError,
)
from fedattn.model.loading import LoadedModel
from fedattn.runtime.listening import open_listeners
from fedattn.runtime.serving import serve_app
from fedattn.wire.authority_client import AuthorityClient
from fedattn.wire.certificate_folder import CertificateFolder
from fedattn.wire.certificate_keeper import CertificateKeeper
from fedattn.wire.enrolment import join, own_certificate
from fedattn.wire.security import AGGREGATOR, GATEWAY
from fedattn.wire.status import error_from_rpc
from fedattn.wire.stubs import AggregatorStub, ParticipantStub
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import participant_pb2
from services.aggregator.__main__ import start_aggregator, stop_aggregator
from services.aggregator.settings import AggregatorSettings
from services.participant.app import Participant
from tests.harness.channels import direct_channel
from tests.harness.networks import query
from tests.harness.runners import make_node, running_participant
from tests.harness.tiny import words

DAY_S = 24 * 3600.0
LOOPBACK = HostPort("127.0.0.1", 0)


@asynccontextmanager
async def running_authority(office: Office) -> AsyncIterator[HostPort]:
    """Yields its address."""
    listeners = open_listeners(LOOPBACK)
    address = LOOPBACK.with_port(listeners[0].getsockname()[1])
    stopping = asyncio.Event()
    serving = asyncio.create_task(
        serve_app(create_app(office), listeners, stopping, 1, office.service_files)
    )
    try:
        yield address
    finally:
        stopping.set()
        await serving


async def joined(office: Office, address: HostPort, folder: Path) -> CertificateFolder:
    token = office.make_token(folder.name, address, 3600.0)
    await asyncio.to_thread(join, token, folder)
    return CertificateFolder(folder)


async def test_node_joins_renews_and_is_revoked(tmp_path: Path) -> None:
    office = Office.open_or_make(tmp_path / "authority")
    async with running_authority(office) as address:
        folder = await joined(office, address, tmp_path / "a")
        assert folder.path.stat().st_mode & 0o777 == 0o700
        assert (folder.path / "tls.key").stat().st_mode & 0o777 == 0o600
        first, now_s = own_certificate(folder), dt.datetime.now(dt.UTC).timestamp()

        await CertificateKeeper(folder, lambda: now_s + 3 * DAY_S).look()
        assert own_certificate(folder) == first  # not half its life is over
        await CertificateKeeper(folder, lambda: now_s + 3.6 * DAY_S).look()
        second = own_certificate(folder)
        assert second != first
        assert second.public_key() != first.public_key()

        office.revoke("a")
        keeper = CertificateKeeper(folder, lambda: now_s + 3.6 * DAY_S)
        with capture_logs() as logs:
            await keeper.look()
            await keeper.look()
        assert folder.revocations.is_revoked([second.serial_number])
        assert own_certificate(folder) == second
        reasons = [str(entry) for entry in logs]
        assert len(reasons) == 2  # each is told once
        assert "fedattn certs token a" in reasons[0]
        assert "own certificate is revoked" in reasons[1]
        assert CertificateFolder(folder.path).revocations.is_revoked([first.serial_number])
    with capture_logs() as logs:  # out of reach: what is known still counts
        await keeper.look()
        await keeper.look()
    assert [entry["event"] for entry in logs] == ["revocations_not_heard"]
    assert folder.revocations.is_revoked([second.serial_number])


async def test_other_authority_gets_neither_secret_nor_node(tmp_path: Path) -> None:
    office = Office.open_or_make(tmp_path / "authority")
    other = Office.open_or_make(tmp_path / "other")
    async with running_authority(other) as address:
        token = office.make_token("a", address, 3600.0)
        with pytest.raises(IdentityMismatchError, match="somebody else answers there"):
            await asyncio.to_thread(join, token, tmp_path / "a")
        client = AuthorityClient(address, office.authority.pem)
        with pytest.raises(AuthorityUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncio.to_thread(client.revoked)
    assert not (tmp_path / "a" / "tls.key").exists()
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        join(token, tmp_path / "open")


async def test_large_and_broken_bodies_are_refused(tmp_path: Path) -> None:
    office = Office.open_or_make(tmp_path)
    async with running_authority(office) as address:
        client = AuthorityClient(address, office.authority.pem)
        with pytest.raises(InvalidRequestError, match=f"more than {MAX_BODY_SIZE} bytes"):
            await asyncio.to_thread(client.renew, "a", b"x" * (MAX_BODY_SIZE + 1))
        with pytest.raises(InvalidRequestError, match="signed request"):
            await asyncio.to_thread(client.renew, "a", b"x")
        with pytest.raises(InvalidRequestError, match="expected node_id"):
            await asyncio.to_thread(client.enrol, "a" * 100, "", "")


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
        server = self.publisher.server
        assert server is not None
        own = self.folders[GATEWAY].current
        async with direct_channel(f"127.0.0.1:{server.port}", own, peer="desk") as channel:
            yield aiter(ParticipantStub(channel).Query(query()))

    async def answer(self) -> str:
        async with self.ask() as events:
            return [str(event.WhichOneof("body")) async for event in events][-1]


@asynccontextmanager
async def running_network(model: LoadedModel, folder: Path) -> AsyncIterator[Network]:
    network = Network(folder / "certs")
    settings = AggregatorSettings(listen="127.0.0.1:0", grace_s=0, heartbeat_interval_s=0.1)
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
            network.publisher = await stack.enter_async_context(
                running_participant(node, network.aggregator, listen="127.0.0.1:0")
            )
            yield network
    finally:
        await stop_aggregator(server, servicer, 0)


async def rejoined(participant: Participant) -> None:
    """Wait until a node has left and joined again."""
    membership = participant.control.joined
    while membership.is_set():
        await membership.changed()
    await membership.wait_joined()


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
        for participant in (network.contributor, network.publisher):
            if participant.control.joined.is_set():
                await rejoined(participant)
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


async def test_revoked_node_is_put_out_and_stays_out(model: LoadedModel, tmp_path: Path) -> None:
    settings = AggregatorSettings(listen="127.0.0.1:0", grace_s=0)
    network = Network(tmp_path / "certs")
    server, servicer = await start_aggregator(settings, network.folders[AGGREGATOR])
    network.aggregator = f"127.0.0.1:{server.port}"
    node = make_node("a", model, None, certificates=network.folders["a"])
    try:
        with pytest.raises(CertificateRevokedError, match="CN=a bears a certificate"):
            async with running_participant(node, network.aggregator) as participant:
                assert participant.control.joined.is_set()
                network.revoke("a")  # its process ends with the reason
                while participant.control.joined.is_set():
                    await participant.control.joined.changed()
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
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in events:
                    pass
        assert isinstance(
            error_from_rpc(caught.value, AggregatorUnavailableError("")), CertificateRevokedError
        )
        with pytest.raises(grpc.aio.AioRpcError, match="revoked"):
            await network.answer()
