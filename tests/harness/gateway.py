"""A gateway before real gRPC servers: an aggregator of fixed nodes, and a scripted participant."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Receive, Scope, Send

from fedattn.core.address import HostPort, SocketPath
from fedattn.core.errors import FedAttnError, PublisherUnavailableError
from fedattn.runtime.doors import Doors
from fedattn.runtime.listening import open_listeners
from fedattn.runtime.serving import serve_app
from fedattn.wire.server import WireServer
from fedattn.wire.status import abort_with
from fedattn.wire.tunnel import SocketFolder
from fedattn.wire.v1 import aggregator_pb2, participant_pb2, session_pb2
from fedattn.wire.v1.aggregator_pb2_grpc import (
    AggregatorServiceServicer,
    add_AggregatorServiceServicer_to_server,
)
from fedattn.wire.v1.participant_pb2_grpc import (
    ParticipantServiceServicer,
    add_ParticipantServiceServicer_to_server,
)
from gateway.app import create_app
from gateway.settings import GatewaySettings

QUESTION = "Which ward had the outbreak on 3 May?"
ANSWER = "Ward 7 had it."
SESSION_ID = "5f2b7c1e9a0d4e3f8b6a1c2d3e4f5a6b"
SERVICE = "fedattn.wire.v1.ParticipantService"

QueryEvent = participant_pb2.QueryEvent
Script = Callable[[participant_pb2.QueryRequest], AsyncIterator[QueryEvent]]


class FakeParticipant(ParticipantServiceServicer):
    """Answers queries by a script and remembers what it was asked."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[participant_pb2.QueryRequest] = []
        self.timeouts_s: list[float] = []
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.num_completed = 0

    async def Query(self, request: Any, context: Any) -> AsyncIterator[QueryEvent]:  # noqa: N802
        self.requests.append(request)
        self.timeouts_s.append(context.time_remaining())
        self.started.set()
        try:
            async for event in self.script(request):
                yield event
            self.num_completed += 1
        except FedAttnError as error:
            await abort_with(context, error)
        except (asyncio.CancelledError, GeneratorExit):  # the latter if cancelled during a send
            self.cancelled.set()
            raise

    async def Warm(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        self.started.set()
        async for event in self.script(request):
            if event.HasField("result"):
                return participant_pb2.WarmResponse(report=event.result.report)
        raise AssertionError("the script has no result")


class FakeAggregator(AggregatorServiceServicer):
    """Lists fixed nodes, and carries connections to the participant whichever is asked for.

    Args:
        path: of the participant's socket.
        publishers: listed as taking queries; besides them there is `node-a`, which takes none.
    """

    def __init__(self, path: SocketPath, publishers: Sequence[str]) -> None:
        self._path = path
        self.publishers = list(publishers)
        self.gone: set[str] = set()
        self.list_error: FedAttnError | None = None

    async def ListNodes(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self.list_error is not None:
            await abort_with(context, self.list_error)
        nodes = [
            node_info("node-a"),
            *(node_info(name, publishes=True) for name in self.publishers),
        ]
        return aggregator_pb2.ListNodesResponse(nodes=nodes)

    async def Tunnel(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        node_id = (await anext(request_iterator)).open.node_id
        if node_id in self.gone:
            await abort_with(context, PublisherUnavailableError(f"node {node_id} has left"))
        try:
            reader, writer = await asyncio.open_unix_connection(self._path.path)
        except OSError:  # the participant has stopped
            return

        async def send() -> None:
            async for request in request_iterator:
                writer.write(request.data)
                await writer.drain()
            writer.close()

        sending = asyncio.create_task(send())
        try:
            yield aggregator_pb2.TunnelResponse()  # both ends are there
            while data := await reader.read(1 << 16):
                yield aggregator_pb2.TunnelResponse(data=data)
        finally:
            sending.cancel()
            writer.close()


@dataclass
class Harness:
    """The parts of a running test network."""

    participant: FakeParticipant
    aggregator: FakeAggregator
    address: HostPort  # of the aggregator
    grpc_server: WireServer  # of the participant
    app: FastAPI
    client: httpx.AsyncClient

    async def ask(self, **fields: Any) -> httpx.Response:
        return await self.client.post("/v1/queries", json={"question": QUESTION, **fields})


@asynccontextmanager
async def running(
    script: Script | None = None,
    *,
    max_concurrent_queries: int = 32,
    publishers: Sequence[str] = ("publisher",),
    registry: CollectorRegistry | None = None,
    flags: Sequence[str] = (),
) -> AsyncIterator[Harness]:
    """The app in this process, called without a socket. Every answer must be documented.

    Args:
        script: of the participant; None for a query that goes well.
        max_concurrent_queries: as in the settings.
        publishers: nodes that take queries, all the same participant.
        registry: takes the gateway's numbers.
        flags: further settings.
    """
    participant = FakeParticipant(script or good_script)
    sockets = SocketFolder()
    path = sockets.new()
    grpc_server, relay = WireServer([SERVICE]), WireServer([])
    await grpc_server.start(
        path,
        lambda server: add_ParticipantServiceServicer_to_server(participant, server),
        with_reflection=False,
    )
    aggregator = FakeAggregator(path, publishers)  # type: ignore[abstract]
    await relay.start(
        HostPort("127.0.0.1", 0),
        lambda server: add_AggregatorServiceServicer_to_server(aggregator, server),
        with_reflection=False,
    )
    address = HostPort("127.0.0.1", relay.port)
    settings = make_settings(str(address), max_concurrent_queries, flags)
    app = create_app(settings, registry=registry)
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://localhost",
        event_hooks={"response": [check_documented]},
    )
    try:
        async with app.router.lifespan_context(app), client:
            yield Harness(participant, aggregator, address, grpc_server, app, client)
    finally:
        await relay.stop(grace_s=0)
        await grpc_server.stop(grace_s=0)
        sockets.close()


@asynccontextmanager
async def served(
    harness: Harness, grace_s: int = 0, doors: Doors | None = None
) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The app of a harness on a real port: its URL, and the event that stops it."""
    listeners = open_listeners(HostPort("127.0.0.1", 0))
    stopping = asyncio.Event()
    app = _started(harness.app)
    serving = asyncio.create_task(serve_app(app, listeners, stopping, grace_s, doors))
    yield f"http://127.0.0.1:{listeners[0].getsockname()[1]}", stopping
    stopping.set()
    await serving


def _started(app: ASGIApp) -> ASGIApp:
    """An app whose lifespan is another's matter."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})

    return call


def make_settings(
    aggregator: str = "127.0.0.1:50051", max_concurrent_queries: int = 32, flags: Sequence[str] = ()
) -> GatewaySettings:
    places = f"--max-concurrent-queries={max_concurrent_queries}"
    return GatewaySettings.load([f"--aggregator={aggregator}", places, *flags])


@cache
def openapi_document() -> dict[str, Any]:
    """Of any gateway; made once, as it takes a while."""
    return create_app(make_settings()).openapi()


async def check_documented(response: httpx.Response) -> None:
    """A hook: status and content type of every answer are in the OpenAPI document."""
    path = openapi_document()["paths"].get(response.request.url.path, {})
    operation = path.get(response.request.method.lower())
    if operation is not None:
        media_type, status = response.headers["content-type"], str(response.status_code)
        documented = operation["responses"]
        content = documented.get(status, documented.get(f"{status[0]}XX", {}))["content"]
        assert media_type.partition(";")[0] in content


def check_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document, complete and fit for its status."""
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["type"] == f"urn:fedattn:error:{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"].startswith("urn:uuid:")
    return problem


async def good_script(request: participant_pb2.QueryRequest) -> AsyncIterator[QueryEvent]:
    yield opened()
    arrival = participant_pb2.Arrival(node_id="node-a", num_rows=3, num_bytes=100, wait_s=0.25)
    progress = participant_pb2.LayerProgress(layer=7, num_rows=3, wait_s=0.25, arrivals=[arrival])
    yield QueryEvent(layer=progress)
    for text in ("Ward 7", " had it."):
        yield QueryEvent(token=participant_pb2.TokenText(text=text))
    yield QueryEvent(result=result())


def opened() -> QueryEvent:
    members = [
        session_pb2.Member(
            node_id="node-a",
            role=session_pb2.ROLE_CONTRIBUTOR,
            span_start=2,
            span_stop=5,
            sync_layers=[7],
        ),
        session_pb2.Member(
            node_id="publisher",
            role=session_pb2.ROLE_PUBLISHER,
            span_start=5,
            span_stop=9,
            sync_layers=[7, 8],
        ),
    ]
    shape = session_pb2.KvShape(num_layers=30, num_kv_heads=3, head_dim=64)
    terms = session_pb2.SessionTerms(
        session_id=SESSION_ID, prefix_len=2, members=members, shape=shape
    )
    return QueryEvent(opened=participant_pb2.SessionOpened(terms=terms, excluded=[excluded()]))


def excluded() -> session_pb2.MemberReport:
    return session_pb2.MemberReport(
        node_id="node-c",
        role=session_pb2.ROLE_CONTRIBUTOR,
        state=session_pb2.OUTCOME_EXCLUDED,
        detail="model differs",
    )


def result(num_tokens: int = 5, decode_s: float = 2.0) -> participant_pb2.QueryResult:
    lost = session_pb2.MemberReport(
        node_id="node-a",
        role=session_pb2.ROLE_CONTRIBUTOR,
        state=session_pb2.OUTCOME_LOST,
        span_len=3,
        layers=[session_pb2.LayerBytes(layer=7, up=100), session_pb2.LayerBytes(layer=8, up=20)],
        missing_from_layer=8,
        detail="connection lost",
    )
    publisher = session_pb2.MemberReport(
        node_id="publisher",
        role=session_pb2.ROLE_PUBLISHER,
        state=session_pb2.OUTCOME_COMPLETE,
        span_len=4,
        layers=[session_pb2.LayerBytes(layer=7, down=100)],
        wait_s=0.25,
        compute_s=0.5,
    )
    return participant_pb2.QueryResult(
        text=ANSWER,
        finish_reason=participant_pb2.FINISH_REASON_END,
        num_tokens=num_tokens,
        time_to_first_token_s=0.75,
        decode_s=decode_s,
        prompt_tokens=9,
        report=session_pb2.SessionReport(
            session_id=SESSION_ID, members=[lost, publisher, excluded()]
        ),
    )


def node_info(node_id: str, *, publishes: bool = False) -> aggregator_pb2.NodeInfo:
    shape = session_pb2.KvShape(num_layers=30, num_kv_heads=3, head_dim=64)
    return aggregator_pb2.NodeInfo(
        node_id=node_id,
        model_fingerprint="9f" * 32,
        capabilities=aggregator_pb2.Capabilities(
            shape=shape, max_positions=8192, model_name="SmolLM2-135M-Instruct"
        ),
        active_sessions=1,
        joined_for_s=12.5,
        publishes=publishes,
        state=aggregator_pb2.NODE_STATE_GOOD,
    )


class Gate:
    """A script that opens the session, then waits until it is opened itself."""

    def __init__(self, *, waits_first: bool = False) -> None:
        self.open = asyncio.Event()
        self._waits_first = waits_first

    async def __call__(self, request: participant_pb2.QueryRequest) -> AsyncIterator[QueryEvent]:
        if self._waits_first:
            await self.open.wait()
        yield opened()
        await self.open.wait()
        yield QueryEvent(result=result())


def failing(error: FedAttnError, *events: QueryEvent) -> Script:
    """A script that ends in an error after some events."""

    async def script(request: participant_pb2.QueryRequest) -> AsyncIterator[QueryEvent]:
        for event in events:
            yield event
        raise error

    return script
