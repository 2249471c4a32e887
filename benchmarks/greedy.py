"""What one member that behaves badly costs the queries of others.

    python -m benchmarks.greedy

Two honest contributors and an honest publisher on a tiny model, and one more member, over the
loopback, in plaintext, all in this process. Timeouts are a tenth of the defaults, and so is the
deadline, so that each figure is a tenth of what users would wait for:

    claims      accepts every invitation with as many tokens as the window has
    mute        answers no invitation
    idle        accepts, attaches, and sends nothing
    drips       sends the head of a frame, and then a byte every half second
    greedy      opens sessions as fast as it can, eight at a time
"""

import asyncio
import logging
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Literal

import grpc
import numpy as np
import structlog

from fedattn.core.chunks import Chunk, split_frame
from fedattn.core.codecs import codec_by_name
from fedattn.core.errors import InternalError
from fedattn.core.frames import encode_frame
from fedattn.core.request import describe_prefix
from fedattn.core.spans import PrefixMode, Span
from fedattn.core.types import HeadRows, KvRows
from fedattn.model.loading import LoadedModel
from fedattn.wire.exchange import write_chunk
from fedattn.wire.session_options import prefix_to_wire
from fedattn.wire.status import error_from_rpc
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.aggregator.settings import AggregatorSettings
from tests.harness.networks import Network, query, running_network
from tests.harness.raw import (
    RawNode,
    acceptance,
    done,
    edited,
    hello,
    open_request,
    raw_node,
    send_all,
)
from tests.harness.tiny import tiny_model, word_tokenizer

NUM_QUERIES = 3
DEADLINE_S = 12.0
SETTINGS = AggregatorSettings(
    listen="127.0.0.1:0",
    grace_s=0,
    heartbeat_interval_s=60,
    invite_timeout_s=1,
    progress_timeout_s=3,
    stall_timeout_s=1,
)
PLAN = "1,2,3"


async def claim(node: RawNode, model: LoadedModel) -> None:
    while True:
        accept(node, (await next_of(node, "invite")).invite, model.max_positions)


async def be_mute(_node: RawNode, _model: LoadedModel) -> None:
    await asyncio.Event().wait()


async def be_idle(node: RawNode, _model: LoadedModel) -> None:
    while True:
        await hold(node, await begin(node))


async def drip(node: RawNode, model: LoadedModel) -> None:
    while True:
        start = await begin(node)
        member = next(one for one in start.terms.members if one.node_id == node.node_id)
        span = Span(member.span_start, member.span_stop)
        rows = np.ones((model.shape.num_kv_heads, len(span), model.shape.head_dim), np.float32)
        kv = KvRows(keys=rows, values=rows, positions=np.arange(span.start, span.stop))
        (whole,) = split_frame(encode_frame(HeadRows.of(kv), 1, codec_by_name("fp32"), span), 1)
        pieces = [whole.data[:100], *(whole.data[i : i + 1] for i in range(100, len(whole.data)))]
        await hold(node, start, pieces)


async def hold(
    node: RawNode, start: pb.SessionStart, pieces: list[bytes | memoryview] | None = None
) -> None:
    """Attach, send pieces of a frame slowly, and stay until the stream ends."""

    async def requests() -> AsyncIterator[pb.ExchangeRequest]:
        yield hello(start)
        place = [member.node_id for member in start.terms.members].index(node.node_id)
        offset, size = 0, sum(map(len, pieces or []))
        for piece in pieces or []:
            chunk = Chunk(layer=1, offset=offset, frame_size=size, data=piece)
            yield pb.ExchangeRequest.FromString(write_chunk(chunk, place))
            offset += len(piece)
            await asyncio.sleep(0.5)
        await asyncio.Event().wait()

    with suppress(grpc.aio.AioRpcError):
        async for _ in node.stub.Exchange(requests()):
            pass


async def next_of(node: RawNode, kind: Literal["invite", "start"]) -> pb.ControlResponse:
    """The next command of a kind; others are ignored."""
    while not (command := await node.commands.get()).HasField(kind):
        pass
    return command


def accept(node: RawNode, invite: pb.Invite, span_len: int) -> None:
    reply = acceptance(node.node_id, invite, span_len)
    node.replies.put_nowait(pb.ControlRequest(invite_reply=reply))


async def begin(node: RawNode) -> pb.SessionStart:
    """Accept invitations until a session starts."""
    while True:
        command = await node.commands.get()
        if command.HasField("invite"):
            accept(node, command.invite, 3)
        elif command.HasField("start"):
            return command.start


async def give_nothing(node: RawNode) -> None:
    while True:
        session_id = (await next_of(node, "invite")).invite.session_id
        answer = pb.Decline(code="nothing_to_give", message="nothing to give")
        reply = pb.InviteReply(session_id=session_id, decline=answer)
        node.replies.put_nowait(pb.ControlRequest(invite_reply=reply))


async def be_greedy(node: RawNode, _model: LoadedModel) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(give_nothing(node))
        for _ in range(8):
            group.create_task(open_again_and_again(node))


async def open_again_and_again(node: RawNode) -> None:
    prefix = prefix_to_wire(describe_prefix(PrefixMode.PUBLIC, word_tokenizer().prefix()))
    while True:
        opening = edited(
            open_request(
                node_token=node.token,
                prefix=prefix,
                nonce=secrets.token_bytes(16),
                issued_at_s=time.time(),
            ),
            lambda asked: setattr(asked, "node_id", node.node_id),
        )
        try:
            start = (await node.stub.OpenSession(opening)).start
            async for _ in node.stub.Exchange(send_all([hello(start), done()])):
                pass
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.01)


async def ask(network: Network) -> str:
    """What an honest client sees."""
    begun = time.monotonic()
    request = query(plan=PLAN, no_reuse=True, deadline_s=DEADLINE_S)
    try:
        events = [event async for event in network.publisher.Query(request)]
    except grpc.aio.AioRpcError as error:
        known = error_from_rpc(error, InternalError("unreachable"))
        return f"{time.monotonic() - begun:5.1f} s  {known.code}: {known}"
    missing = [
        f"{one.node_id}: {one.detail}"
        for one in events[-1].result.report.members
        if one.state != session_pb2.OUTCOME_COMPLETE and one.role == session_pb2.ROLE_CONTRIBUTOR
    ]
    return f"{time.monotonic() - begun:5.1f} s  answer; {'; '.join(missing) or 'all took part'}"


BEHAVIOURS: dict[str, Callable[[RawNode, LoadedModel], Awaitable[None]]] = {
    "claims": claim,
    "mute": be_mute,
    "idle": be_idle,
    "drips": drip,
    "greedy": be_greedy,
}


async def measure(name: str, model: LoadedModel, folder: Path) -> None:
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(running_network(model, folder, SETTINGS))
        node = await stack.enter_async_context(
            raw_node(
                network.aggregator,
                name,
                fingerprint=model.fingerprint,
                shape=model.shape,
                max_positions=model.max_positions,
            )
        )
        misbehaving = asyncio.ensure_future(BEHAVIOURS[name](node, model))
        for _ in range(2 * NUM_QUERIES if name == "greedy" else NUM_QUERIES):
            print(f"{name:7} {await ask(network)}", flush=True)
        misbehaving.cancel()
        await asyncio.gather(misbehaving, return_exceptions=True)


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    model = tiny_model("llama")
    with tempfile.TemporaryDirectory() as folder:
        for name in BEHAVIOURS:
            asyncio.run(measure(name, model, Path(folder)))


if __name__ == "__main__":
    main()
