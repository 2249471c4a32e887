"""Nodes without a model: they join, accept every invitation and send frames made beforehand."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import grpc
import numpy as np

from fedattn.core.agreement import MemberStatement, PassageSpan
from fedattn.core.chunks import split_frame
from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.frames import encode_frame
from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.core.request import SessionOptions, SessionRequest, describe_prefix
from fedattn.core.spans import PrefixMode, Span
from fedattn.core.types import HeadRows, KvRows, KvShape
from fedattn.wire.convert import chunk_to_wire, shape_to_wire
from fedattn.wire.identity import Identity, Kind
from fedattn.wire.protocol import MAX_MESSAGE_SIZE, PROTOCOL_VERSION
from fedattn.wire.requests import Opening, opening_to_wire, request_to_wire, statement_to_wire
from fedattn.wire.stubs import AggregatorStub
from fedattn.wire.v1 import aggregator_pb2 as pb

SHAPE = KvShape(num_layers=30, num_kv_heads=3, head_dim=64)
CODEC = codec_by_name("bf16")
PUBLISHER = "publisher"
IDENTITY = Identity()  # plaintext: dummies sign nothing
_EXCHANGE = "/fedattn.wire.v1.AggregatorService/Exchange"
_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_SIZE),
    ("grpc.max_send_message_length", MAX_MESSAGE_SIZE),
    ("grpc.use_local_subchannel_pool", 1),  # a connection a node, as in a real network
]


@cache
def frame_messages(start: int, stop: int, layer: int) -> tuple[bytes, ...]:
    """The chunks of one frame as they go over the wire."""
    rows = np.ones((SHAPE.num_kv_heads, stop - start, SHAPE.head_dim), dtype=np.float32)
    span = Span(start, stop)
    kv = KvRows(keys=rows, values=rows, positions=np.arange(start, stop))
    frame = encode_frame(HeadRows.of(kv), layer, CODEC, span)
    return tuple(
        pb.ExchangeRequest(chunk=chunk_to_wire(chunk)).SerializeToString()
        for chunk in split_frame(frame, layer)
    )


@dataclass(slots=True)
class Clock:
    """When frames left, and how long they took to arrive, seconds."""

    sent: dict[tuple[str, int, int], float] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class DummyNode:
    """One joined node."""

    node_id: str
    channel: grpc.aio.Channel
    span_len: int
    clock: Clock
    gate: asyncio.Event  # frames leave once it is set
    token: str = ""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _replies: asyncio.Queue[pb.ControlRequest] = field(default_factory=asyncio.Queue)

    async def control(self, joined: Callable[[], None]) -> None:
        """Membership; answers what it is asked."""
        call = AggregatorStub(self.channel).Control(self._requests(), wait_for_ready=True)
        async for command in call:
            match command.WhichOneof("body"):
                case "welcome":
                    self.token = command.welcome.node_token
                    joined()
                case "invite":
                    reply = self._accept(command.invite)
                    self._replies.put_nowait(pb.ControlRequest(invite_reply=reply))
                case "start":
                    task = asyncio.create_task(self.exchange(command.start))
                    self.tasks.add(task)
                    task.add_done_callback(self.tasks.discard)

    def _accept(self, invite: pb.Invite) -> pb.InviteReply:
        statement = MemberStatement(
            session_id=invite.session_id,
            request_digest=hashlib.sha256(invite.request.payload).digest(),
            node_id=self.node_id,
            span_len=self.span_len,
            passages=(PassageSpan(1, self.span_len),),
        )
        signed = IDENTITY.sign(Kind.STATEMENT, statement_to_wire(statement).SerializeToString())
        return pb.InviteReply(session_id=invite.session_id, statement=signed)

    async def _requests(self) -> AsyncIterator[pb.ControlRequest]:
        capabilities = pb.Capabilities(
            shape=shape_to_wire(SHAPE),
            max_positions=1 << 20,
            codec_ids=[CODEC.codec_id],
            max_sessions=1000,
            model_name="dummy",
        )
        join = pb.Join(
            protocol_version=PROTOCOL_VERSION,
            node_id=self.node_id,
            model_fingerprint="f" * 64,
            capabilities=capabilities,
        )
        yield pb.ControlRequest(join=join)
        while True:
            try:
                async with asyncio.timeout(2.0):
                    reply = await self._replies.get()
            except TimeoutError:
                reply = pb.ControlRequest(heartbeat=pb.Heartbeat())
            yield reply

    async def open(self, contributors: list[str], layers: list[int]) -> pb.SessionStart:
        """Open a session as its publisher; contributors do not wait for each other."""
        request = SessionRequest(
            node_id=self.node_id,
            span_len=1,
            prefix=describe_prefix(PrefixMode.PUBLIC, [1, 2, 3]),
            plans=RolePlans(contributors=SyncPlan(()), publisher=SyncPlan(tuple(layers))),
            max_new_tokens=1,
            compression=Compression(codec=CODEC),
            options=SessionOptions(
                contributors=tuple(contributors),
                min_participants=len(contributors) + 1,
                deadline_s=300,
            ),
        )
        signed = IDENTITY.sign(Kind.REQUEST, request_to_wire(request).SerializeToString())
        opening = Opening(signed=signed, request=request, node_token=self.token)
        return (await AggregatorStub(self.channel).OpenSession(opening_to_wire(opening))).start

    async def exchange(self, start: pb.SessionStart) -> None:
        """Send own frames, take the others' and say the last words."""
        layout = start.terms
        place = next(i for i, m in enumerate(layout.members) if m.node_id == self.node_id)
        is_publisher = place == len(layout.members) - 1
        layers = list(layout.members[-1].sync_layers)
        received = asyncio.Event()

        async def requests() -> AsyncIterator[bytes]:
            hello = pb.Hello(session_id=layout.session_id, member_token=start.member_token)
            yield pb.ExchangeRequest(hello=hello).SerializeToString()
            await self.gate.wait()
            member = layout.members[place]
            for layer in () if is_publisher else layers:
                self.clock.sent[layout.session_id, place, layer] = time.monotonic()
                for message in frame_messages(member.span_start, member.span_stop, layer):
                    yield message
            if is_publisher:
                await received.wait()
            yield pb.ExchangeRequest(done=pb.MemberDone()).SerializeToString()

        method: Any = self.channel.stream_stream(_EXCHANGE)  # bytes: dummies should cost little
        call: AsyncIterable[bytes] = method(requests())
        missing = (len(layout.members) - 1) * len(layers)
        async for data in call:
            response = pb.ExchangeResponse.FromString(data)
            chunk = response.chunk
            if response.HasField("chunk") and chunk.offset + len(chunk.data) == chunk.frame_size:
                begun = self.clock.sent.pop((layout.session_id, chunk.sender, chunk.layer))
                self.clock.latencies_s.append(time.monotonic() - begun)
                missing -= 1
            if missing == 0:
                received.set()


@dataclass(slots=True)
class DummyNetwork:
    """Dummy contributors and one publisher at a running aggregator."""

    publisher: DummyNode
    contributors: list[DummyNode]
    clock: Clock
    gate: asyncio.Event

    async def run_sessions(self, count: int, num_contributors: int, layers: list[int]) -> None:
        """So many sessions at once; rows move once all of them are open."""
        self.gate.clear()
        ids = [node.node_id for node in self.contributors]
        opening = []
        for number in range(count):
            chosen = [ids[(number + i) % len(ids)] for i in range(num_contributors)]
            opening.append(self.publisher.open(chosen, layers))
        starts = await asyncio.gather(*opening)
        publishing = [asyncio.create_task(self.publisher.exchange(start)) for start in starts]
        self.gate.set()
        await asyncio.gather(*publishing)
        running = [task for node in self.contributors for task in node.tasks]
        await asyncio.gather(*running)


@asynccontextmanager
async def dummy_network(
    address: str, num_contributors: int, span_len: int
) -> AsyncIterator[DummyNetwork]:
    """Joined dummies, each with a connection of its own."""
    clock, gate = Clock(), asyncio.Event()
    names = [*(f"node-{i:03}" for i in range(num_contributors)), PUBLISHER]
    nodes, controls = [], []
    for name in names:
        channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        node = DummyNode(name, channel, span_len, clock, gate)
        joined = asyncio.Event()
        control = asyncio.create_task(node.control(joined.set))
        controls.append(control)
        joining = asyncio.create_task(joined.wait())
        await asyncio.wait({joining, control}, return_when=asyncio.FIRST_COMPLETED)
        if control.done():
            control.result()
        nodes.append(node)
    try:
        yield DummyNetwork(nodes[-1], nodes[:-1], clock, gate)
    finally:
        for control in controls:
            control.cancel()
        await asyncio.gather(*controls, return_exceptions=True)
        for node in nodes:
            await node.channel.close()
