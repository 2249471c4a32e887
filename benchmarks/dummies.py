"""Nodes without a model: they join, accept every invitation and send frames made beforehand.

A session begins at a time that its schedule says, and each of its frames is due at another, as if a
model made them. Latencies count from those times, whatever was late before.
"""

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
from fedattn.wire.convert import shape_to_wire
from fedattn.wire.exchange import EXCHANGE, write_chunk
from fedattn.wire.identity import Identity, Kind
from fedattn.wire.protocol import MAX_MESSAGE_SIZE, PROTOCOL_VERSION
from fedattn.wire.requests import Opening, opening_to_wire, request_to_wire, statement_to_wire
from fedattn.wire.stubs import AggregatorStub
from fedattn.wire.v1 import aggregator_pb2 as pb

SHAPE = KvShape(num_layers=30, num_kv_heads=3, head_dim=64)
CODEC = codec_by_name("bf16")
IDENTITY = Identity()  # plaintext: dummies sign nothing
DEADLINE_S = 600
_HEARTBEAT_S = 5.0
_JOINING_AT_ONCE = 50
_OPEN_S = 60.0
_JOIN_S = 300.0
_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_SIZE),
    ("grpc.max_send_message_length", MAX_MESSAGE_SIZE),
    ("grpc.use_local_subchannel_pool", 1),  # a connection a node, as in a real network
]


@cache
def frame_messages(start: int, stop: int, layer: int, place: int) -> tuple[bytes, ...]:
    """The chunks of one frame as they go over the wire, of the member at a place."""
    rows = np.ones((SHAPE.num_kv_heads, stop - start, SHAPE.head_dim), dtype=np.float32)
    span = Span(start, stop)
    kv = KvRows(keys=rows, values=rows, positions=np.arange(start, stop))
    frame = encode_frame(HeadRows.of(kv), layer, CODEC, span)
    return tuple(write_chunk(chunk, place) for chunk in split_frame(frame, layer))


def frame_bytes(span_len: int) -> int:
    """Of one frame, as messages."""
    return sum(len(message) for message in frame_messages(3, 3 + span_len, 0, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a session moves, and when.

    Attributes:
        contributors: of each session.
        layers: a contributor sends a frame for each.
        lead_s: from the begin of the session until the first frames are due: time for the opening,
            in which a model would compute the blocks below.
        frame_interval_s: from one frame of a contributor to its next; 0 for all at once.
    """

    contributors: int
    layers: tuple[int, ...]
    lead_s: float = 0.0
    frame_interval_s: float = 0.0

    def due(self, begin: float, number: int) -> float:
        """When a contributor's frame leaves."""
        return begin + self.lead_s + number * self.frame_interval_s

    @property
    def length_s(self) -> float:
        """From the begin of a session to its last frames."""
        return self.due(0.0, len(self.layers) - 1)


@dataclass(slots=True)
class Schedule:
    """When sessions begin, and how late they were opened and their frames arrived, seconds."""

    pace: Pace
    begins: dict[bytes | str, float] = field(default_factory=dict)  # by digest, then session id
    openings_s: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    open_now: int = 0
    most_open: int = 0

    def note_failure(self, what: str) -> None:
        """Count something that should not have happened."""
        self.failures[what] = self.failures.get(what, 0) + 1


class LostMemberError(Exception):
    """A contributor was too late: the session is given up."""


@dataclass(slots=True, eq=False)
class DummyNode:
    """One joined node."""

    node_id: str
    home: str  # address of the aggregator that it is joined at
    span_len: int
    schedule: Schedule
    token: str = ""
    channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _replies: asyncio.Queue[pb.ControlRequest] = field(default_factory=asyncio.Queue)

    def channel(self, address: str = "") -> grpc.aio.Channel:
        """To an aggregator; its home by default."""
        address = address or self.home
        if address not in self.channels:
            self.channels[address] = grpc.aio.insecure_channel(address, options=_OPTIONS)
        return self.channels[address]

    async def control(self, joined: Callable[[], None]) -> None:
        """Membership; answers what it is asked."""
        call = AggregatorStub(self.channel()).Control(self._requests(), wait_for_ready=True)
        async for command in call:
            match command.WhichOneof("body"):
                case "welcome":
                    self.token = command.welcome.node_token
                    joined()
                case "invite":
                    reply = self._accept(command.invite)
                    self._replies.put_nowait(pb.ControlRequest(invite_reply=reply))
                case "start":
                    task = asyncio.create_task(self._contribute(command.start))
                    self.tasks.add(task)
                    task.add_done_callback(self.tasks.discard)

    async def _contribute(self, start: pb.SessionStart) -> None:
        if start.terms.session_id not in self.schedule.begins:
            return  # its publisher has given it up
        try:
            await self.exchange(start)
        except LostMemberError:
            pass  # the publisher counts it
        except grpc.aio.AioRpcError as error:
            self.schedule.note_failure(f"contributor: {error.code().name}")

    def _accept(self, invite: pb.Invite) -> pb.InviteReply:
        digest = hashlib.sha256(invite.request.payload).digest()
        self.schedule.begins[invite.session_id] = self.schedule.begins[digest]
        statement = MemberStatement(
            session_id=invite.session_id,
            request_digest=digest,
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
                async with asyncio.timeout(_HEARTBEAT_S):
                    reply = await self._replies.get()
            except TimeoutError:
                reply = pb.ControlRequest(heartbeat=pb.Heartbeat())
            yield reply

    async def publish(self, contributors: list[str], begin: float) -> None:
        """One whole session, whose publisher this node is.

        Args:
            contributors: who else takes part; they do not wait for each other.
            begin: when it was to begin, of the event loop's clock.
        """
        schedule = self.schedule
        request = SessionRequest(
            node_id=self.node_id,
            span_len=1,
            prefix=describe_prefix(PrefixMode.PUBLIC, [1, 2, 3]),
            plans=RolePlans(contributors=SyncPlan(()), publisher=SyncPlan(schedule.pace.layers)),
            max_new_tokens=1,
            compression=Compression(codec=CODEC),
            options=SessionOptions(
                contributors=tuple(contributors),
                min_participants=len(contributors) + 1,
                deadline_s=DEADLINE_S,
            ),
        )
        signed = IDENTITY.sign(Kind.REQUEST, request_to_wire(request).SerializeToString())
        opening = Opening(signed=signed, request=request, node_token=self.token)
        digest = hashlib.sha256(signed.payload).digest()
        schedule.begins[digest] = begin
        session_id = ""
        try:
            start = await self._open(opening_to_wire(opening))
            session_id = start.terms.session_id
            schedule.openings_s.append(time.monotonic() - begin)
            await self.exchange(start)
        finally:
            schedule.begins.pop(digest)
            schedule.begins.pop(session_id, None)

    async def _open(self, request: pb.OpenSessionRequest) -> pb.SessionStart:
        """Ask at home, then where it says; the start names the aggregator of the session."""
        opened = await AggregatorStub(self.channel()).OpenSession(request, timeout=_OPEN_S)
        if opened.HasField("redirect"):
            address, request.redirected = opened.redirect.address, True
            stub = AggregatorStub(self.channel(address))
            opened = await stub.OpenSession(request, timeout=_OPEN_S)
            opened.start.aggregator = address
        return opened.start

    async def exchange(self, start: pb.SessionStart) -> None:
        """Send own frames when they are due, take the others' and say the last words."""
        terms, pace = start.terms, self.schedule.pace
        place = next(i for i, m in enumerate(terms.members) if m.node_id == self.node_id)
        is_publisher = place == len(terms.members) - 1
        begin, received = self.schedule.begins[terms.session_id], asyncio.Event()

        async def requests() -> AsyncIterator[bytes]:
            hello = pb.Hello(session_id=terms.session_id, member_token=start.member_token)
            yield pb.ExchangeRequest(hello=hello).SerializeToString()
            member = terms.members[place]
            for number, layer in enumerate(() if is_publisher else pace.layers):
                await asyncio.sleep(pace.due(begin, number) - time.monotonic())
                for message in frame_messages(member.span_start, member.span_stop, layer, place):
                    yield message
            if is_publisher:
                await received.wait()
            yield pb.ExchangeRequest(done=pb.MemberDone()).SerializeToString()

        channel = self.channel(start.aggregator)
        method: Any = channel.stream_stream(EXCHANGE)  # bytes: dummies should cost little
        call: AsyncIterable[bytes] = method(requests(), timeout=DEADLINE_S)
        missing = (len(terms.members) - 1) * len(pace.layers)
        async for data in call:
            response = pb.ExchangeResponse.FromString(data)
            chunk = response.chunk
            if response.HasField("lost"):
                raise LostMemberError(response.lost.reason)
            if response.HasField("chunk") and chunk.offset + len(chunk.data) == chunk.frame_size:
                due = pace.due(begin, pace.layers.index(chunk.layer))
                self.schedule.latencies_s.append(time.monotonic() - due)
                missing -= 1
            if missing == 0:
                received.set()


async def _until_known(node: DummyNode, count: int) -> None:
    """Until the aggregator of a node knows of so many, wherever they are joined."""
    stub = AggregatorStub(node.channel())
    while len((await stub.ListNodes(pb.ListNodesRequest())).nodes) < count:  # noqa: ASYNC110 - of others
        await asyncio.sleep(0.1)


@asynccontextmanager
async def dummy_nodes(
    addresses: list[str], count: int, span_len: int
) -> AsyncIterator[list[DummyNode]]:
    """Joined dummies, in turn at each of the aggregators, with connections of their own."""
    places = asyncio.Semaphore(_JOINING_AT_ONCE)
    idle = Schedule(Pace(contributors=0, layers=()))
    nodes = [
        DummyNode(f"node-{i:05}", addresses[i % len(addresses)], span_len, idle)
        for i in range(count)
    ]
    controls: list[asyncio.Task[None]] = []

    async def join(node: DummyNode) -> None:
        joined = asyncio.Event()
        async with places:
            control = asyncio.create_task(node.control(joined.set))
            controls.append(control)
            joining = asyncio.create_task(joined.wait())
            await asyncio.wait({joining, control}, return_when=asyncio.FIRST_COMPLETED)
            if control.done():
                control.result()

    try:
        async with asyncio.timeout(_JOIN_S):
            await asyncio.gather(*map(join, nodes))
            await asyncio.gather(*(_until_known(node, count) for node in nodes[: len(addresses)]))
        yield nodes
    finally:
        for control in controls:
            control.cancel()
        await asyncio.gather(*controls, return_exceptions=True)
        for channel in (channel for node in nodes for channel in node.channels.values()):
            await channel.close()
