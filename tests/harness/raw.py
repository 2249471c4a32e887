"""A participant that speaks the wire by hand, so that it can misbehave."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedattn.core.chunks import split_frame
from fedattn.core.codecs import CODECS, codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.frames import encode_frame
from fedattn.core.node_id import AGGREGATOR
from fedattn.core.request import SessionOptions, describe_prefix
from fedattn.core.spans import PrefixMode, Span
from fedattn.core.types import HeadRows, KvRows, KvShape
from fedattn.wire.convert import compression_to_wire, shape_to_wire
from fedattn.wire.exchange import write_chunk
from fedattn.wire.protocol import PROTOCOL_VERSION
from fedattn.wire.security import Certificates
from fedattn.wire.session_options import options_to_wire, prefix_to_wire
from fedattn.wire.stubs import AggregatorStub
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2
from tests.harness.channels import direct_channel

SHAPE = KvShape(num_layers=4, num_kv_heads=2, head_dim=8)
FINGERPRINT = "f" * 64
CODEC = codec_by_name("fp32")
OPTION_NAMES = set(session_pb2.SessionOptions.DESCRIPTOR.fields_by_name)
REQUEST_NAMES = set(session_pb2.SessionRequest.DESCRIPTOR.fields_by_name)
PREFIX = prefix_to_wire(describe_prefix(PrefixMode.PUBLIC, [1, 2, 3]))


def join_message(
    node_id: str,
    *,
    fingerprint: str = FINGERPRINT,
    version: int = PROTOCOL_VERSION,
    shape: KvShape = SHAPE,
    max_positions: int = 64,
) -> pb.Join:
    return pb.Join(
        protocol_version=version,
        node_id=node_id,
        model_fingerprint=fingerprint,
        capabilities=pb.Capabilities(
            shape=shape_to_wire(shape),
            max_positions=max_positions,
            codec_ids=[codec.codec_id for codec in CODECS],
            max_sessions=4,
            model_name="dummy",
        ),
    )


def open_request(**changes: object) -> pb.OpenSessionRequest:
    """A valid wish of node "publisher" for sync at layers 1 and 2."""
    request = session_pb2.SessionRequest(
        node_id="publisher",
        span_len=2,
        prefix=PREFIX,
        contributor_sync_layers=[1, 2],
        publisher_sync_layers=[1, 2],
        max_new_tokens=4,
        compression=compression_to_wire(Compression(codec=CODEC)),
        options=options_to_wire(SessionOptions(deadline_s=30)),
        nonce=bytes(16),
    )
    options = {key: changes.pop(key) for key in OPTION_NAMES & changes.keys()}
    asked = {key: changes.pop(key) for key in REQUEST_NAMES & changes.keys()}
    request.MergeFrom(session_pb2.SessionRequest(**asked))  # type: ignore[arg-type]
    request.options.MergeFrom(session_pb2.SessionOptions(**options))  # type: ignore[arg-type]
    signed = session_pb2.Signed(payload=request.SerializeToString())
    return pb.OpenSessionRequest(request=signed, **changes)  # type: ignore[arg-type]


def edited(
    opening: pb.OpenSessionRequest, edit: Callable[[session_pb2.SessionRequest], object]
) -> pb.OpenSessionRequest:
    """The same with its signed part changed; nobody signs in plaintext."""
    request = session_pb2.SessionRequest.FromString(opening.request.payload)
    edit(request)
    opening.request.payload = request.SerializeToString()
    return opening


def frame_chunks(start: pb.SessionStart, node_id: str, layer: int) -> list[pb.ExchangeRequest]:
    """A member's valid frame of one layer."""
    place = [member.node_id for member in start.terms.members].index(node_id)
    member = start.terms.members[place]
    num_rows = member.span_stop - member.span_start
    rows = np.ones((SHAPE.num_kv_heads, num_rows, SHAPE.head_dim), dtype=np.float32)
    span = Span(member.span_start, member.span_stop)
    kv = KvRows(keys=rows, values=rows, positions=np.arange(span.start, span.stop))
    frame = encode_frame(HeadRows.of(kv), layer, CODEC, span)
    chunks = (write_chunk(chunk, place) for chunk in split_frame(frame, layer))
    return [pb.ExchangeRequest.FromString(chunk) for chunk in chunks]


def hello(start: pb.SessionStart) -> pb.ExchangeRequest:
    message = pb.Hello(session_id=start.terms.session_id, member_token=start.member_token)
    return pb.ExchangeRequest(hello=message)


async def hold_open(
    start: pb.SessionStart, *requests: pb.ExchangeRequest
) -> AsyncIterator[pb.ExchangeRequest]:
    """A member that says this much and then stays."""
    yield hello(start)
    for request in requests:
        yield request
    await asyncio.Event().wait()


def done() -> pb.ExchangeRequest:
    return pb.ExchangeRequest(done=pb.MemberDone(wait_s=0.5, compute_s=0.25))


def acceptance(
    node_id: str, invite: pb.Invite, span_len: int, max_keep_ratio: float = 1.0, **reply: Any
) -> pb.InviteReply:
    """A contributor's yes to an invitation, unsigned."""
    statement = session_pb2.MemberStatement(
        session_id=invite.session_id,
        request_digest=hashlib.sha256(invite.request.payload).digest(),
        node_id=node_id,
        span_len=span_len,
        max_keep_ratio=max_keep_ratio,
        passages=[session_pb2.Passage(number=1, num_tokens=span_len)] if span_len else [],
    )
    signed = session_pb2.Signed(payload=statement.SerializeToString())
    return pb.InviteReply(session_id=invite.session_id, statement=signed, **reply)


async def send_all(requests: list[pb.ExchangeRequest]) -> AsyncIterator[pb.ExchangeRequest]:
    for request in requests:
        yield request


@dataclass(slots=True, eq=False)
class RawNode:
    """A joined node whose commands the test reads and answers itself."""

    node_id: str
    stub: AggregatorStub
    replies: asyncio.Queue[pb.ControlRequest] = field(default_factory=asyncio.Queue)
    commands: asyncio.Queue[pb.ControlResponse] = field(default_factory=asyncio.Queue)
    token: str = ""
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def accept(self, span_len: int) -> None:
        """Wait for an invitation and accept it; what came before is of earlier sessions."""
        while not (command := await self.commands.get()).HasField("invite"):
            pass
        invite = command.invite
        reply = acceptance(self.node_id, invite, span_len)
        await self.replies.put(pb.ControlRequest(invite_reply=reply))

    async def decline(self, code: str, message: str) -> None:
        """Wait for an invitation and decline it."""
        invite = (await self.commands.get()).invite
        answer = pb.Decline(code=code, message=message)
        reply = pb.InviteReply(session_id=invite.session_id, decline=answer)
        await self.replies.put(pb.ControlRequest(invite_reply=reply))

    async def listed(self) -> list[str]:
        """Ids of the joined nodes."""
        request = pb.ListNodesRequest(node_id=self.node_id, node_token=self.token)
        return [node.node_id for node in (await self.stub.ListNodes(request)).nodes]

    async def started(self) -> pb.SessionStart:
        """Wait for the start of the session."""
        return (await self.commands.get()).start


@asynccontextmanager
async def raw_node(
    address: str, node_id: str, certificates: Certificates | None = None, **join: Any
) -> AsyncIterator[RawNode]:
    """Join by hand; leaves when the block ends."""
    async with direct_channel(address, certificates, peer=AGGREGATOR) as channel:
        node = RawNode(node_id, AggregatorStub(channel))

        async def requests() -> AsyncIterator[pb.ControlRequest]:
            yield pb.ControlRequest(join=join_message(node_id, **join))
            while True:
                yield await node.replies.get()

        call = node.stub.Control(requests())
        welcome = await call.read()
        assert isinstance(welcome, pb.ControlResponse)
        assert welcome.HasField("welcome")
        node.token = welcome.welcome.node_token

        async def pump() -> None:
            while isinstance(command := await call.read(), pb.ControlResponse):
                await node.commands.put(command)
            node.left.set()

        pumping = asyncio.create_task(pump())
        try:
            yield node
        finally:
            pumping.cancel()
            call.cancel()
            await asyncio.gather(pumping, return_exceptions=True)
