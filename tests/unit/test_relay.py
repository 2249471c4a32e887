"""What the aggregator does with a chunk: checked once, passed on as it came to all receivers."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from fedattn.core.chunks import Chunk, split_frame
from fedattn.core.costs import MemberBytes, MemberCost, session_bytes
from fedattn.core.errors import (
    CertificateRevokedError,
    FedAttnError,
    InternalError,
    MalformedFrameError,
    PolicyRefusedError,
    SessionAbortedError,
)
from fedattn.core.frames import encode_frame
from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.core.request import SessionRequest, describe_prefix
from fedattn.core.session import MemberState
from fedattn.core.spans import PrefixMode
from fedattn.core.terms import SessionTerms
from fedattn.core.types import KvShape
from fedattn.wire.convert import shape_to_wire
from fedattn.wire.exchange import Request, SentChunk, read_request, read_response, write_chunk
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator import relay as relaying
from services.aggregator.opened import OpenedMember, OpenedSession
from services.aggregator.pace import PaceLimits
from services.aggregator.registry import Node
from services.aggregator.relay import relay_member
from services.aggregator.session import Blame, Session
from tests.harness.samples import ROTARY, sample_layout, sample_rows

A, B, PUBLISHER = 0, 1, 2
REQUEST = SessionRequest(
    node_id="publisher",
    span_len=1,
    prefix=describe_prefix(PrefixMode.PUBLIC, []),
    plans=RolePlans(contributors=SyncPlan((1, 2, 3)), publisher=SyncPlan((1, 2, 3))),
    max_new_tokens=1,
)
NEVER_SLOW = PaceLimits(
    attach_s=3600.0, frame_s=3600.0, margin_s=3600.0, bytes_per_s=1, total_s=3600.0, tick_s=1.0
)


def anybody(_: str) -> None:
    """A caller in plaintext."""


FIVE_LAYERS = KvShape(num_layers=5, num_kv_heads=1, head_dim=2)


def opened_member(traffic: MemberBytes) -> OpenedMember:
    shape = shape_to_wire(FIVE_LAYERS)
    join = pb.Join(node_id=traffic.node_id, capabilities=pb.Capabilities(shape=shape))
    cost = MemberCost(traffic=traffic, flops_prefill=0, flops_decode=0, peak_memory_bytes=0)
    node = Node(join=join, shape=FIVE_LAYERS, joined_at=0.0, token_digest=b"")
    return OpenedMember(node=node, planned=cost)


def make_session(pace: PaceLimits = NEVER_SLOW, blame: Blame = lambda *_: None) -> Session:
    """Contributors a and b, and the publisher, attending at layers 1 to 3."""
    layout = sample_layout(contributors=(1, 2, 3), publisher=(1, 2, 3))
    terms = SessionTerms(
        session_id="session",
        layout=layout,
        shape=FIVE_LAYERS,
        deadline_s=3600.0,
        progress_timeout_s=3600.0,
        min_participants=1,
    )
    costs = session_bytes(layout, FIVE_LAYERS)
    opened = OpenedSession(request=REQUEST, terms=terms, members=tuple(map(opened_member, costs)))
    return Session(opened, outbox_bytes=1 << 20, stall_timeout_s=3600.0, pace=pace, blame=blame)


def chunk_of(session: Session, layer: int, index: int = A) -> Chunk:
    """The only chunk of a member's frame."""
    member = session.state.member(index)
    rows = sample_rows(shape=FIVE_LAYERS, span=member.span)
    frame = encode_frame(rows, layer, member.compression.codec, member.span, ROTARY)
    return next(iter(split_frame(frame, layer)))


async def relay(session: Session, chunks: list[Chunk], place: int = A) -> None:
    """Let a send chunks that say whose they are, and say that it is done."""

    async def requests() -> AsyncIterator[Request]:
        for chunk in chunks:
            yield read_request(write_chunk(chunk, place))
        yield pb.ExchangeRequest(done=pb.MemberDone())

    token = session.opened.members[A].token
    async for _ in relayed(session, token, requests()):
        raise AssertionError("a receives nothing")


def relayed(
    session: Session, token: str, requests: AsyncIterator[Request]
) -> AsyncGenerator[bytes | pb.ExchangeResponse, None]:
    return relay_member(
        session,
        token,
        requests,
        check_caller=anybody,
        report_timeout_s=3600.0,
        why_broken=lambda node: f"the connection of {node.node_id} broke",
    )


async def test_receivers_share_one_message_that_says_who_sent_it() -> None:
    session = make_session()
    chunks = [chunk_of(session, layer) for layer in (1, 2, 3)]
    await relay(session, chunks)
    for chunk in chunks[:2]:  # b uploads nothing above layer 3, so it needs nothing of it
        to_b = await session.outboxes[B].get()
        to_publisher = await session.outboxes[PUBLISHER].get()
        assert isinstance(to_b, bytes)
        assert to_b is to_publisher
        assert read_response(to_b) == SentChunk(A, chunk, write_chunk(chunk, A))


def place_of(message: object) -> tuple[int, int]:
    """Sender and block of a chunk."""
    assert isinstance(message, bytes)
    sent = read_response(message)
    assert isinstance(sent, SentChunk)
    return sent.sender, sent.chunk.layer


async def test_low_blocks_overtake_and_a_loss_is_told_behind_the_rows_that_came() -> None:
    session = make_session()
    for sender, layer in ((A, 1), (A, 2), (A, 3), (B, 1), (B, 2)):
        chunk = chunk_of(session, layer, sender)
        await session.accept(sender, SentChunk(sender, chunk, write_chunk(chunk, sender)))
    session.mark_lost(B, SessionAbortedError("gone"))
    told = [await session.outboxes[PUBLISHER].get() for _ in range(6)]
    notice = told.pop(4)
    assert [place_of(message) for message in told] == [(A, 1), (B, 1), (A, 2), (B, 2), (A, 3)]
    assert isinstance(notice, pb.ExchangeResponse)
    assert notice.lost.member == B


async def test_rows_of_one_sender_are_never_mixed_whatever_order_it_likes() -> None:
    session = make_session()
    layers = (3, 1, 2)
    for layer in layers:
        chunk = chunk_of(session, layer)
        await session.accept(A, SentChunk(A, chunk, write_chunk(chunk, A)))
    came = [place_of(await session.outboxes[PUBLISHER].get()) for _ in layers]
    assert came == [(A, layer) for layer in layers]


async def test_who_says_that_its_rows_are_anothers_is_lost() -> None:
    session = make_session()
    with pytest.raises(MalformedFrameError, match="says it is of member 1, expected its own"):
        await relay(session, [chunk_of(session, 1)], place=B)
    notice = await session.outboxes[PUBLISHER].get()
    assert isinstance(notice, pb.ExchangeResponse)
    assert notice.lost.member == A


async def test_publisher_lost_between_its_last_word_and_its_report_ends_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session, completed = make_session(), asyncio.Event()

    def complete(index: int, done: pb.MemberDone) -> None:
        Session.complete(session, index, done)
        completed.set()

    monkeypatch.setattr(session, "complete", complete)
    for contributor in (A, B):
        session.attach(session.opened.members[contributor].token, anybody)

    async def requests() -> AsyncIterator[Request]:
        yield pb.ExchangeRequest(done=pb.MemberDone())

    token = session.opened.members[PUBLISHER].token
    responses = relayed(session, token, requests())
    async with aclosing(responses):
        reading = asyncio.create_task(anext(responses))
        await completed.wait()
        reading.cancel()
        await asyncio.wait({reading})
    assert session.over.is_set()
    assert "the publisher is gone" in str(session.errors[A])


async def test_a_defect_of_the_relay_is_logged_and_ends_the_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def accept(*_: object) -> None:
        raise ZeroDivisionError

    session = make_session()
    monkeypatch.setattr(session, "accept", accept)
    with capture_logs() as logs, pytest.raises(InternalError, match="the aggregator's log"):
        await relay(session, [chunk_of(session, 1)])
    assert (logs[0]["event"], logs[0]["exc_info"]) == ("upload_failed", True)
    assert session.state.ledgers[A].state is MemberState.LOST


@pytest.mark.parametrize("frame_s", [0.0, 3600.0])
async def test_whoever_lets_others_wait_until_they_go_on_is_blamed(frame_s: float) -> None:
    blamed: list[tuple[str, str]] = []
    pace = replace(NEVER_SLOW, frame_s=frame_s)
    session = make_session(pace, lambda *blame: blamed.append(blame[:2]))
    for index in (A, PUBLISHER):
        session.attach(session.opened.members[index].token, anybody)
    begun = replace(chunk_of(session, 1), data=chunk_of(session, 1).data[:40])
    await session.accept(A, SentChunk(A, begun, write_chunk(begun, A)))
    session.lose_slow()
    session.lose_slow()
    session.send_report()
    expected = [] if frame_s else [("a", "others went on without rows they waited for")]
    assert blamed == expected


class Ends:
    """What a sends before its stream ends, and when it ended."""

    def __init__(self, *requests: pb.ExchangeRequest) -> None:
        self._requests = requests
        self.at_end = asyncio.Event()

    async def __call__(self) -> AsyncIterator[Request]:
        for request in self._requests:
            yield request
        self.at_end.set()


async def reason_of(session: Session, ends: Ends, *, is_cut: bool) -> str:
    """Why a was lost; its call is cut once its requests have ended, or goes on."""
    responses = relayed(session, session.opened.members[A].token, ends())
    async with aclosing(responses):
        reading = asyncio.ensure_future(anext(responses))
        await ends.at_end.wait()
        if is_cut:
            reading.cancel()
        await asyncio.wait({reading})
    return session.state.ledgers[A].reason


async def test_a_call_that_breaks_is_no_stream_that_ended() -> None:
    assert await reason_of(make_session(), Ends(), is_cut=True) == "the connection of a broke"


async def test_a_stream_that_ends_early_in_a_call_that_lives_is_the_members_own_doing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relaying, "_BREAKS_WITHIN_S", 0.0)
    reason = await reason_of(make_session(), Ends(), is_cut=False)
    assert reason == "it ended its stream before it was done"


async def test_a_members_own_reason_wins_over_the_end_of_its_stream() -> None:
    decline = pb.Decline(code="policy_refused", message="its owner stopped it")
    ends, session = Ends(pb.ExchangeRequest(failed=decline)), make_session()
    responses = relayed(session, session.opened.members[A].token, ends())
    with pytest.raises(PolicyRefusedError, match="its owner stopped it"):
        await anext(responses)
    lost = await session.outboxes[PUBLISHER].get()
    assert isinstance(lost, pb.ExchangeResponse)
    assert lost.lost.reason == session.state.ledgers[A].reason == "its owner stopped it"


async def test_a_member_that_the_gate_sends_away_is_lost_for_that_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    revoked: FedAttnError = CertificateRevokedError("a bears a revoked certificate")
    monkeypatch.setattr(relaying, "why_expelled", lambda: revoked)
    assert await reason_of(make_session(), Ends(), is_cut=True) == "a bears a revoked certificate"
