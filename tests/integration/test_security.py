"""Mutual TLS: who may talk to whom, and what the others are told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from fedattn.cli.certificates import init_certificates
from fedattn.core.address import HostPort
from fedattn.core.errors import (
    AggregatorUnavailableError,
    ConfigurationError,
    FedAttnError,
    IdentityMismatchError,
    InvalidRequestError,
    PolicyRefusedError,
    PublisherUnavailableError,
)
from fedattn.core.node_id import AGGREGATOR, GATEWAY
from fedattn.model.loading import LoadedModel
from fedattn.wire.certificate_folder import choose_security
from fedattn.wire.probe import is_serving
from fedattn.wire.security import Certificates, read_certificates
from fedattn.wire.server import WireServer
from fedattn.wire.status import error_from_rpc
from fedattn.wire.stubs import AggregatorStub
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import participant_pb2, participant_pb2_grpc
from gateway.way import Way
from gateway.ways import Ways
from services.aggregator.__main__ import start_aggregator, stop_aggregator
from services.aggregator.settings import AggregatorSettings
from services.aggregator.tunnels import Tunnels
from tests.harness.channels import direct_channel, endpoint, way_to
from tests.harness.networks import query
from tests.harness.runners import make_node, running_participant
from tests.harness.tiny import words

PUBLISHER = "Desk_1.north"
UNREACHABLE = AggregatorUnavailableError("out of reach")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certs")
    init_certificates(made, ["a", PUBLISHER], 30)
    return made


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Another authority's node of the same name."""
    made = tmp_path_factory.mktemp("others")
    init_certificates(made, ["a"], 30)
    return read_certificates(made / "a")


@dataclass(frozen=True, slots=True)
class Secure:
    """A contributor and a publisher with certificates.

    Attributes:
        address: of the aggregator.
        tunnels: of the aggregator, which needs nobody's leave to connect to a node.
    """

    address: str
    tunnels: Tunnels


@asynccontextmanager
async def secure_network(model: LoadedModel, folder: Path, texts: Path) -> AsyncIterator[Secure]:
    own = {name: read_certificates(folder / name) for name in (AGGREGATOR, "a", PUBLISHER)}
    settings = AggregatorSettings(listen="127.0.0.1:0", grace_s=0)
    server, servicer = await start_aggregator(settings, own[AGGREGATOR])
    address = f"127.0.0.1:{server.port}"
    context = texts / "a.txt"
    context.write_text(words(5, 6))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(stop_aggregator, server, servicer, 0)
        node = make_node("a", model, context, certificates=own["a"])
        await stack.enter_async_context(running_participant(node, address))
        node = make_node(PUBLISHER, model, None, certificates=own[PUBLISHER])
        node.publishes = True
        await stack.enter_async_context(running_participant(node, address))
        yield Secure(address, servicer.tunnels)


async def ask(way: Way) -> list[str]:
    await way.connect()
    return [str(event.WhichOneof("body")) async for event in way.stub.Query(query())]


async def refusal_of_join(
    address: str, certificates: Certificates | None, node_id: str = "a"
) -> FedAttnError:
    async def requests() -> AsyncIterator[pb.ControlRequest]:
        yield pb.ControlRequest(join=pb.Join(node_id=node_id))

    async with direct_channel(address, certificates, peer=AGGREGATOR) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in AggregatorStub(channel).Control(requests()):
                pass
    return error_from_rpc(caught.value, UNREACHABLE)


async def test_query_runs_over_mutual_tls_and_only_as_who_one_is(
    model: LoadedModel, folder: Path, stranger: Certificates, tmp_path: Path
) -> None:
    gateway, own = read_certificates(folder / GATEWAY), read_certificates(folder / "a")
    async with secure_network(model, folder, tmp_path) as network:
        aggregator = network.address
        async with way_to(PUBLISHER, aggregator, gateway) as way:
            assert (await ask(way))[-1] == "result"
        assert await is_serving(endpoint(aggregator), own, AGGREGATOR)
        assert not await is_serving(endpoint(aggregator), own, "another")

        async with way_to(PUBLISHER, aggregator, own) as way:
            with pytest.raises(IdentityMismatchError, match="certificate of gateway, got the one"):
                await way.connect()
        async with way_to("a", aggregator, gateway) as way:
            with pytest.raises(PolicyRefusedError, match="node a takes no queries"):
                await way.connect()
        for unknown in (None, stranger):
            async with way_to(PUBLISHER, aggregator, unknown) as way:
                with pytest.raises(AggregatorUnavailableError):
                    await way.connect()

        impostor = await refusal_of_join(aggregator, own, node_id="b")
        assert isinstance(impostor, IdentityMismatchError)
        assert isinstance(await refusal_of_join(aggregator, stranger), AggregatorUnavailableError)
        assert isinstance(await refusal_of_join(aggregator, None), AggregatorUnavailableError)


class Listener(participant_pb2_grpc.ParticipantServiceServicer):
    """Ends TLS where a publisher is expected, and would pass questions on to it."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def Query(  # noqa: N802 - as generated
        self,
        request: participant_pb2.QueryRequest,
        context: object,
    ) -> AsyncIterator[participant_pb2.QueryEvent]:
        self.heard.append(request.question)
        yield participant_pb2.QueryEvent()


class Between:
    """Carries connections as an aggregator does, but where it wants to.

    Args:
        ends: makes the bytes that come back.
    """

    address = "between"

    def __init__(self, ends: Callable[[AsyncIterator[Any]], AsyncIterator[Any]]) -> None:
        self._ends = ends

    @contextmanager
    def tunnel(self, requests: AsyncIterator[Any]) -> Iterator[AsyncIterator[Any]]:
        yield self._ends(requests)

    async def check_alive(self) -> None:
        """Whatever is between, it lives."""


def to_port(port: int) -> Between:
    """To a server of its own."""

    async def ends(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await anext(requests)

        async def send() -> None:
            async for request in requests:
                writer.write(request.data)

        sending = asyncio.create_task(send())
        try:
            yield pb.TunnelResponse()
            while data := await reader.read(1 << 16):
                yield pb.TunnelResponse(data=data)
        finally:
            sending.cancel()
            writer.close()

    return Between(ends)


def to_node(tunnels: Tunnels) -> Between:
    """To a node, from within an aggregator that asks by itself."""

    async def ends(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        first = await anext(requests)
        async for response in tunnels.serve_gateway(first.open.node_id, requests):
            yield response

    return Between(ends)


@asynccontextmanager
async def way_through(between: Any, node_id: str, own: Certificates) -> AsyncIterator[Way]:
    ways = Ways(own)
    try:
        yield await ways.take(node_id, between, [node_id])
    finally:
        await ways.close()


@pytest.mark.parametrize("holder", [AGGREGATOR, "a"])
async def test_nobody_can_end_tls_between_gateway_and_publisher(
    holder: str, model: LoadedModel, folder: Path, tmp_path: Path
) -> None:
    own, gateway = read_certificates(folder / holder), read_certificates(folder / GATEWAY)
    server = WireServer([], own)
    listener = Listener()  # type: ignore[abstract]
    await server.start(
        HostPort("127.0.0.1", 0),
        lambda grpc_server: participant_pb2_grpc.add_ParticipantServiceServicer_to_server(
            listener, grpc_server
        ),
        with_reflection=False,
    )
    try:
        async with way_through(to_port(server.port), PUBLISHER, gateway) as way:
            with pytest.raises(PublisherUnavailableError, match="and under that name"):
                await ask(way)  # the gateway's end
        assert not listener.heard
        async with way_through(to_port(server.port), holder, gateway) as way:
            await ask(way)  # it does listen
        assert listener.heard
    finally:
        await server.stop(grace_s=0)
    async with secure_network(model, folder, tmp_path) as network:
        async with way_through(to_node(network.tunnels), PUBLISHER, own) as way:
            with pytest.raises(grpc.aio.AioRpcError) as caught:  # the publisher's end
                await ask(way)
    error = error_from_rpc(caught.value, UNREACHABLE)
    assert isinstance(error, IdentityMismatchError)
    assert f"expected the certificate of gateway, got the one of {holder}" in str(error)


async def test_listing_of_nodes_is_for_members_and_gateways(
    model: LoadedModel, folder: Path, tmp_path: Path
) -> None:
    async with secure_network(model, folder, tmp_path) as network:
        for name, is_allowed in ((GATEWAY, True), ("a", False)):  # the latter without its token
            own = read_certificates(folder / name)
            async with direct_channel(network.address, own, peer=AGGREGATOR) as channel:
                call = AggregatorStub(channel).ListNodes(pb.ListNodesRequest())
                if is_allowed:
                    listed = {node.node_id: node.publishes for node in (await call).nodes}
                    assert listed == {"a": False, PUBLISHER: True}
                else:
                    with pytest.raises(grpc.aio.AioRpcError, match="certificate of gateway"):
                        await call


def test_certificates_are_kept_until_asked_for_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init_certificates(tmp_path, ["a"], 30)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.[ck][re][ty]")}
    assert all(path.stat().st_mode & 0o077 == 0 for path in before if path.suffix == ".key")
    init_certificates(tmp_path, ["a", "b"], 30)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert f"made   {tmp_path / 'b'}" in capsys.readouterr().out
    init_certificates(tmp_path, ["a"], 30, renew=True)
    changed = {path for path, content in before.items() if path.read_bytes() != content}
    assert {path.parent.name for path in changed} == {"aggregator", "gateway", "a"}
    assert not any(path.name == "ca.crt" for path in changed)


@pytest.mark.parametrize("node_id", ["ca", ".hidden", "a b", ""])
def test_names_that_cannot_be_are_refused(node_id: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="node id"):
        init_certificates(tmp_path, [node_id], 30)
    assert not list(tmp_path.iterdir())


def test_security_must_be_chosen(folder: Path, tmp_path: Path) -> None:
    assert choose_security(None, plaintext=True) is None
    chosen = choose_security(folder / "a", plaintext=False)
    assert chosen is not None
    assert chosen.current == read_certificates(folder / "a")
    with pytest.raises(ConfigurationError, match="fedattn certs"):
        choose_security(None, plaintext=False)
    with pytest.raises(ConfigurationError, match="exclude each other"):
        choose_security(folder, plaintext=True)
    with pytest.raises(ConfigurationError, match=r"cannot read .*ca\.crt"):
        choose_security(tmp_path, plaintext=False)
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (tmp_path / name).write_text("nothing")
        (tmp_path / name).chmod(0o600)
    with pytest.raises(ConfigurationError, match="is no PEM file"):
        read_certificates(tmp_path)
