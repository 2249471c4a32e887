"""Mutual TLS: who may talk to whom, and what the others are told."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

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
)
from fedattn.core.node_id import AGGREGATOR, GATEWAY
from fedattn.model.loading import LoadedModel
from fedattn.wire.certificate_folder import choose_security
from fedattn.wire.probe import is_serving
from fedattn.wire.security import Certificates, read_certificates
from fedattn.wire.server import WireServer
from fedattn.wire.status import error_from_rpc
from fedattn.wire.stubs import AggregatorStub, ParticipantStub
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import participant_pb2, participant_pb2_grpc
from tests.harness.channels import direct_channel, endpoint
from tests.harness.networks import query
from tests.harness.runners import make_node, running_aggregator, running_participant
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


@asynccontextmanager
async def secure_network(model: LoadedModel, folder: Path, texts: Path) -> AsyncIterator[list[str]]:
    """A contributor and a publisher; yields the addresses of aggregator and publisher."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        own = {name: read_certificates(folder / name) for name in (AGGREGATOR, "a", PUBLISHER)}
        address = await enter(running_aggregator(certificates=own[AGGREGATOR]))
        context = texts / "a.txt"
        context.write_text(words(5, 6))
        await enter(
            running_participant(make_node("a", model, context, certificates=own["a"]), address)
        )
        publisher = await enter(
            running_participant(
                make_node(PUBLISHER, model, None, certificates=own[PUBLISHER]),
                address,
                listen="127.0.0.1:0",
            )
        )
        assert publisher.server is not None
        yield [address, f"127.0.0.1:{publisher.server.port}"]


async def ask(address: str, certificates: Certificates | None, peer: str) -> list[str]:
    async with direct_channel(address, certificates, peer=peer) as channel:
        call = ParticipantStub(channel).Query(query())
        return [str(event.WhichOneof("body")) async for event in call]


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
    async with secure_network(model, folder, tmp_path) as (aggregator, publisher):
        assert (await ask(publisher, gateway, PUBLISHER))[-1] == "result"
        assert await is_serving(endpoint(publisher), own, PUBLISHER)
        assert not await is_serving(endpoint(publisher), own, "another")

        with pytest.raises(grpc.aio.AioRpcError):
            await ask(publisher, None, "")
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # not who was called
            await ask(publisher, gateway, "another")
        assert "TLS says" in str(error_from_rpc(caught.value, UNREACHABLE))

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


@pytest.mark.parametrize("holder", [AGGREGATOR, "a"])
async def test_nobody_can_end_tls_between_gateway_and_publisher(
    holder: str, model: LoadedModel, folder: Path, tmp_path: Path
) -> None:
    own, gateway = read_certificates(folder / holder), read_certificates(folder / GATEWAY)
    between = WireServer([], own)
    listener = Listener()  # type: ignore[abstract]
    await between.start(
        HostPort("127.0.0.1", 0),
        lambda server: participant_pb2_grpc.add_ParticipantServiceServicer_to_server(
            listener, server
        ),
        with_reflection=False,
    )
    try:
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # the gateway's end
            await ask(f"127.0.0.1:{between.port}", gateway, PUBLISHER)
        assert "TLS says" in str(error_from_rpc(caught.value, UNREACHABLE))
        assert not listener.heard
        await ask(f"127.0.0.1:{between.port}", gateway, holder)  # it does listen
        assert listener.heard
    finally:
        await between.stop(grace_s=0)
    async with secure_network(model, folder, tmp_path) as (_, publisher):
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # the publisher's end
            await ask(publisher, own, PUBLISHER)
    error = error_from_rpc(caught.value, UNREACHABLE)
    assert isinstance(error, IdentityMismatchError)
    assert f"expected the certificate of gateway, got the one of {holder}" in str(error)


async def test_listing_of_nodes_needs_the_gateways_certificate_too(
    model: LoadedModel, folder: Path, tmp_path: Path
) -> None:
    request = participant_pb2.ListParticipantsRequest()
    async with secure_network(model, folder, tmp_path) as (_, publisher):
        for name, is_allowed in ((GATEWAY, True), ("a", False)):
            own = read_certificates(folder / name)
            async with direct_channel(publisher, own, peer=PUBLISHER) as channel:
                call = ParticipantStub(channel).ListParticipants(request)
                if is_allowed:
                    assert len((await call).nodes) == 2
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
