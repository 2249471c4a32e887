"""The aggregator over a real socket, with nodes that behave and nodes that do not."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from fedattn.core.errors import (
    ContextTooLongError,
    FedAttnError,
    InternalError,
    InvalidPlanError,
    InvalidRequestError,
    ModelMismatchError,
    NoContributorsError,
    NotEnoughParticipantsError,
    ParticipantDepartedError,
    ProtocolMismatchError,
    UnknownParticipantError,
)
from fedattn.wire.status import error_from_rpc
from fedattn.wire.stubs import AggregatorStub
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.aggregator.__main__ import SERVICE_NAME
from services.aggregator.settings import AggregatorSettings
from tests.harness.channels import direct_channel
from tests.harness.raw import (
    CODEC,
    OPTION_NAMES,
    REQUEST_NAMES,
    RawNode,
    done,
    edited,
    frame_chunks,
    hello,
    hold_open,
    join_message,
    open_request,
    raw_node,
    send_all,
)
from tests.harness.runners import running_aggregator


@pytest.fixture
async def address() -> AsyncIterator[str]:
    settings = AggregatorSettings(
        listen="127.0.0.1:0", grace_s=0, invite_timeout_s=0.3, report_timeout_s=0.3
    )
    async with running_aggregator(settings) as where:
        yield where


@pytest.fixture
async def stub(address: str) -> AsyncIterator[AggregatorStub]:
    async with direct_channel(address) as channel:
        yield AggregatorStub(channel)


async def failure_of(call: object) -> FedAttnError:
    """The error a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return error_from_rpc(caught.value, InternalError("unreachable"))


async def open_with(
    publisher: RawNode, contributors: dict[RawNode, int], **changes: object
) -> dict[str, pb.SessionStart]:
    """Open a session; returns each node's start."""
    accepting = [asyncio.create_task(node.accept(n)) for node, n in contributors.items()]
    response = await publisher.stub.OpenSession(open_request(node_token=publisher.token, **changes))
    await asyncio.gather(*accepting)
    starts = {node.node_id: await node.started() for node in contributors}
    return {**starts, publisher.node_id: response.start}


async def test_joined_nodes_are_listed_for_one_of_them_until_they_leave(address: str) -> None:
    async with raw_node(address, "a") as a:
        async with raw_node(address, "b"):
            listed = await a.listed()
        assert listed == ["a", "b"]
        while await a.listed() != ["a"]:
            pass


async def test_nodes_are_not_listed_for_others(address: str, stub: AggregatorStub) -> None:
    async with raw_node(address, "a"):
        for token in ("", "0"):
            request = pb.ListNodesRequest(node_id="a", node_token=token)
            error = await failure_of(stub.ListNodes(request))
            assert isinstance(error, UnknownParticipantError)


async def test_rows_reach_the_publisher_and_the_report_counts_them(address: str) -> None:
    async with raw_node(address, "a") as a, raw_node(address, "publisher") as publisher:
        starts = await open_with(publisher, {a: 3})
        sent = [
            hello(starts["a"]),
            *frame_chunks(starts["a"], "a", 1),
            *frame_chunks(starts["a"], "a", 2),
            done(),
        ]
        upload = a.stub.Exchange(send_all(sent))
        assert [answer async for answer in upload] == []
        received = publisher.stub.Exchange(send_all([hello(starts["publisher"]), done()]))
        answers = [answer async for answer in received]
    assert [(answer.chunk.sender, answer.chunk.layer) for answer in answers[:-1]] == [
        (0, 1),
        (0, 2),
    ]
    report = answers[-1].report
    by_id = {member.node_id: member for member in report.members}
    size = len(sent[1].chunk.data)
    assert [(x.layer, x.up) for x in by_id["a"].layers] == [(1, size), (2, size)]
    assert by_id["a"].state == session_pb2.OUTCOME_COMPLETE
    assert (by_id["a"].wait_s, by_id["a"].compute_s) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda data: b"XXXX" + data[4:], "malformed_frame"),
        (lambda data: data[:20] + b"\xff\xff\xff\xff" + data[24:], "malformed_frame"),
    ],
    ids=["wrong magic", "first position"],
)
async def test_broken_frame_costs_its_sender_the_session_and_the_publisher_is_told(
    address: str, damage: object, code: str
) -> None:
    async with raw_node(address, "a") as a, raw_node(address, "publisher") as publisher:
        starts = await open_with(publisher, {a: 3})
        (bad,) = frame_chunks(starts["a"], "a", 1)
        bad.chunk.data = damage(bad.chunk.data)  # type: ignore[operator]
        received = publisher.stub.Exchange(send_all([hello(starts["publisher"]), done()]))
        upload = a.stub.Exchange(send_all([hello(starts["a"]), bad]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [_ async for _ in upload]
        error = error_from_rpc(caught.value, InternalError("unreachable"))
        assert error.code == code
        assert "frame from a" in str(error)
        report = [answer async for answer in received][-1].report
    member = report.members[0]
    assert (member.node_id, member.state) == ("a", session_pb2.OUTCOME_LOST)
    assert member.missing_from_layer == 1
    assert "frame from a" in member.detail


async def test_lost_contributor_is_announced_to_those_who_wait(address: str) -> None:
    async with raw_node(address, "publisher") as publisher:
        async with raw_node(address, "a") as a:
            starts = await open_with(publisher, {a: 3})
            received = publisher.stub.Exchange(hold_open(starts["publisher"]))
            first = frame_chunks(starts["a"], "a", 1)
            upload = a.stub.Exchange(hold_open(starts["a"], *first))
            await received.read()
            upload.cancel()
            answer = await received.read()
        assert isinstance(answer, pb.ExchangeResponse)
        assert answer.lost.member == 0
        received.cancel()


async def test_contributor_that_leaves_before_the_exchange_is_announced(address: str) -> None:
    async with raw_node(address, "publisher") as publisher:
        async with raw_node(address, "a") as a:
            starts = await open_with(publisher, {a: 3})
        received = publisher.stub.Exchange(hold_open(starts["publisher"]))
        answer = await received.read()
        assert isinstance(answer, pb.ExchangeResponse)
        assert "left before" in answer.lost.reason
        received.cancel()


async def test_lost_publisher_ends_the_session_of_its_contributors(address: str) -> None:
    async with raw_node(address, "publisher") as publisher, raw_node(address, "a") as a:
        starts = await open_with(publisher, {a: 3})
        first = frame_chunks(starts["a"], "a", 1)
        upload = a.stub.Exchange(hold_open(starts["a"], *first))
        received = publisher.stub.Exchange(hold_open(starts["publisher"]))
        await received.read()
        received.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [_ async for _ in upload]
    error = error_from_rpc(caught.value, InternalError("unreachable"))
    assert error.code == "session_aborted"
    assert "publisher" in str(error)


async def test_session_ends_at_its_deadline(address: str) -> None:
    async with raw_node(address, "publisher") as publisher, raw_node(address, "a") as a:
        starts = await open_with(publisher, {a: 3}, deadline_s=0.2)
        received = publisher.stub.Exchange(hold_open(starts["publisher"]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [_ async for _ in received]
    assert "deadline of 0.2 s" in str(error_from_rpc(caught.value, InternalError("")))


async def test_contributor_that_cannot_go_on_says_why_at_once(address: str) -> None:
    async with raw_node(address, "a") as a, raw_node(address, "publisher") as publisher:
        starts = await open_with(publisher, {a: 3})
        decline = pb.Decline(code="configuration", message="its disk is full")
        session_id = starts["a"].terms.session_id
        reply = pb.InviteReply(session_id=session_id, decline=decline)
        await a.replies.put(pb.ControlRequest(invite_reply=reply))
        received = publisher.stub.Exchange(hold_open(starts["publisher"]))
        answer = await received.read()
        received.cancel()
    assert isinstance(answer, pb.ExchangeResponse)
    assert answer.lost.reason == "its disk is full"


async def test_members_that_never_attach_end_their_session(address: str) -> None:
    """Nothing stays open because a publisher vanished between opening and exchanging."""
    async with raw_node(address, "a") as a, raw_node(address, "publisher") as publisher:
        starts = await open_with(publisher, {a: 3}, deadline_s=3600)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [_ async for _ in a.stub.Exchange(hold_open(starts["a"]))]
    assert "did not begin its exchange" in str(error_from_rpc(caught.value, InternalError("")))


async def test_cancelled_opening_takes_its_invitations_back(address: str) -> None:
    async with raw_node(address, "a") as a, raw_node(address, "publisher") as publisher:
        opening = publisher.stub.OpenSession(open_request(node_token=publisher.token))
        invite = (await a.commands.get()).invite
        opening.cancel()
        cancel = (await a.commands.get()).cancel
    assert cancel.session_id == invite.session_id


async def test_contributor_that_leaves_during_the_invitation_is_not_waited_for() -> None:
    settings = AggregatorSettings(listen="127.0.0.1:0", grace_s=0, invite_timeout_s=3600)
    async with running_aggregator(settings) as address:
        async with raw_node(address, "publisher") as publisher:
            async with raw_node(address, "a") as a:
                opening = publisher.stub.OpenSession(open_request(node_token=publisher.token))
                await a.commands.get()
            error = await failure_of(opening)
    assert isinstance(error, ParticipantDepartedError)
    assert str(error) == "a: it left: its connection broke"


async def test_stopping_aggregator_tells_the_members_of_running_sessions() -> None:
    settings = AggregatorSettings(listen="127.0.0.1:0", grace_s=0.05)
    aggregator = running_aggregator(settings)
    address = await aggregator.__aenter__()
    async with raw_node(address, "publisher") as publisher, raw_node(address, "a") as a:
        starts = await open_with(publisher, {a: 3})
        first = frame_chunks(starts["a"], "a", 1)
        upload = a.stub.Exchange(hold_open(starts["a"], *first))
        received = publisher.stub.Exchange(hold_open(starts["publisher"]))
        await received.read()
        stopping = asyncio.create_task(aggregator.__aexit__(None, None, None))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [_ async for _ in upload]
        received.cancel()
    await stopping
    assert "the aggregator stops" in str(error_from_rpc(caught.value, InternalError("")))


async def test_wrong_token_opens_nothing(address: str) -> None:
    async with raw_node(address, "publisher") as publisher, raw_node(address, "a") as a:
        starts = await open_with(publisher, {a: 3})
        starts["a"].member_token = "0" * 32
        call = a.stub.Exchange(send_all([hello(starts["a"])]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert error_from_rpc(caught.value, InternalError("")).code == "unknown_session"


async def test_member_may_attach_once(address: str) -> None:
    async with raw_node(address, "publisher") as publisher, raw_node(address, "a") as a:
        starts = await open_with(publisher, {a: 3})
        received = publisher.stub.Exchange(hold_open(starts["publisher"]))
        upload = a.stub.Exchange(hold_open(starts["a"], *frame_chunks(starts["a"], "a", 1)))
        await received.read()
        again = a.stub.Exchange(send_all([hello(starts["a"])]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await again.read()
        upload.cancel()
        received.cancel()
    assert error_from_rpc(caught.value, InternalError("")).code == "session_state"


def change(opening: pb.OpenSessionRequest, field: str, value: object) -> None:
    """Overwrite a field of what opens a session, wherever it stands."""

    def overwrite(message: Any) -> None:
        message.ClearField(field)
        message.MergeFrom(type(message)(**{field: value}))

    if field in OPTION_NAMES:
        edited(opening, lambda asked: overwrite(asked.options))
    elif field in REQUEST_NAMES:
        edited(opening, overwrite)
    else:
        overwrite(opening)


@pytest.mark.parametrize(
    ("changes", "expected", "words"),
    [
        ({"contributors": ["ghost"]}, UnknownParticipantError, "'ghost' is not joined"),
        ({"contributors": ["publisher"]}, UnknownParticipantError, "'publisher' asks here"),
        ({"contributors": ["stranger"]}, ModelMismatchError, "stranger runs model"),
        ({"contributors": ["a", "a"]}, InvalidRequestError, "named twice"),
        ({"cached_keys": [b"short"]}, InvalidRequestError, "size of a cached key"),
        ({"cached_keys": [b""]}, InvalidRequestError, "size of a cached key"),
        ({"node_id": "nobody"}, UnknownParticipantError, "'nobody'"),
        ({"node_token": "0" * 32}, UnknownParticipantError, "the caller is not that node"),
        ({"node_token": "é"}, UnknownParticipantError, "the caller is not that node"),
        ({"contributor_sync_layers": [4]}, InvalidPlanError, "blocks 0 to 3"),
        (
            {"compression": session_pb2.Compression(codec_id=99)},
            InvalidRequestError,
            "codec number 99",
        ),
        (
            {"compression": session_pb2.Compression(codec_id=1, selector="random")},
            InvalidRequestError,
            "keep_ratio must be above 0 and at most 1, got 0.0",
        ),
        ({"min_participants": 9}, NotEnoughParticipantsError, "9 are required"),
        ({"span_len": 60}, ContextTooLongError, "window is 64"),
        ({"deadline_s": 1e9}, InvalidRequestError, "deadline_s"),
        ({"independent": True}, InvalidRequestError, "leave out their sync layers"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_bad_request_is_refused_with_the_reason(
    address: str, changes: dict[str, object], expected: type[FedAttnError], words: str
) -> None:
    async with (
        raw_node(address, "a") as a,
        raw_node(address, "stranger", fingerprint="0" * 64),
        raw_node(address, "publisher") as publisher,
    ):
        accepting = asyncio.create_task(a.accept(3))
        request = open_request(node_token=publisher.token)
        for field, value in changes.items():
            change(request, field, value)
        error = await failure_of(publisher.stub.OpenSession(request))
        accepting.cancel()
    assert type(error) is expected
    assert words in str(error)


async def test_without_contributors_there_is_no_session(address: str) -> None:
    async with raw_node(address, "publisher") as publisher:
        error = await failure_of(
            publisher.stub.OpenSession(open_request(node_token=publisher.token))
        )
    assert isinstance(error, NoContributorsError)


async def test_node_with_another_model_is_left_out_and_named(address: str) -> None:
    async with (
        raw_node(address, "a") as a,
        raw_node(address, "stranger", fingerprint="0" * 64),
        raw_node(address, "publisher") as publisher,
    ):
        accepting = asyncio.create_task(a.accept(3))
        response = await publisher.stub.OpenSession(open_request(node_token=publisher.token))
        await accepting
    assert [member.node_id for member in response.start.terms.members] == ["a", "publisher"]
    (excluded,) = response.excluded
    assert excluded.node_id == "stranger"
    assert "same model" in excluded.detail


async def test_silent_contributor_is_left_out_and_named(address: str) -> None:
    async with (
        raw_node(address, "a") as a,
        raw_node(address, "mute"),
        raw_node(address, "publisher") as publisher,
    ):
        accepting = asyncio.create_task(a.accept(3))
        response = await publisher.stub.OpenSession(open_request(node_token=publisher.token))
        await accepting
    assert "mute did not answer within 0.3 s" in response.excluded[0].detail


async def test_reason_of_a_declining_contributor_reaches_the_publisher(address: str) -> None:
    async with raw_node(address, "a") as a, raw_node(address, "publisher") as publisher:
        declining = asyncio.create_task(a.decline("context_too_long", "70 tokens, window is 64"))
        error = await failure_of(
            publisher.stub.OpenSession(open_request(node_token=publisher.token))
        )
        await declining
    assert isinstance(error, ContextTooLongError)
    assert str(error) == "a: 70 tokens, window is 64"


async def test_other_protocol_version_is_refused(stub: AggregatorStub) -> None:
    join = pb.ControlRequest(join=join_message("old", version=99))
    error = await failure_of(stub.Control(send_control(join)).read())
    assert isinstance(error, ProtocolMismatchError)
    assert "99" in str(error)


async def test_second_node_of_one_id_is_refused(address: str, stub: AggregatorStub) -> None:
    async with raw_node(address, "a"):
        join = pb.ControlRequest(join=join_message("a"))
        error = await failure_of(stub.Control(send_control(join)).read())
    assert error.code == "duplicate_node"


async def send_control(*requests: pb.ControlRequest) -> AsyncIterator[pb.ControlRequest]:
    for request in requests:
        yield request


async def test_node_without_heartbeat_loses_its_membership() -> None:
    settings = AggregatorSettings(listen="127.0.0.1:0", grace_s=0, heartbeat_interval_s=0.05)
    async with running_aggregator(settings) as address, raw_node(address, "mute") as node:
        await node.left.wait()
        with pytest.raises(grpc.aio.AioRpcError, match="'mute' is not joined"):
            await node.listed()


async def test_health_is_checked_and_watched(address: str) -> None:
    serving = health_pb2.HealthCheckResponse.SERVING
    async with direct_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=SERVICE_NAME)
        assert (await stub.Check(request)).status == serving
        watch = stub.Watch(request)
        assert (await watch.read()).status == serving
        watch.cancel()


async def test_members_compress_as_the_publisher_wishes(address: str) -> None:
    async with raw_node(address, "a") as a, raw_node(address, "publisher") as publisher:
        starts = await open_with(publisher, {a: 3})
    codecs = {member.compression.codec_id for member in starts["a"].terms.members}
    assert codecs == {CODEC.codec_id}


@pytest.mark.parametrize("reflection", [True, False])
async def test_schema_is_told_only_if_asked_for(reflection: bool) -> None:
    settings = AggregatorSettings(listen="127.0.0.1:0", grace_s=0, reflection=reflection)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async with running_aggregator(settings) as address, direct_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([request]))
        if reflection:
            answer = await call.read()
            names = {service.name for service in answer.list_services_response.service}
            assert {SERVICE_NAME, "grpc.health.v1.Health"} <= names
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_digest_that_would_fill_every_outbox_is_refused(address: str) -> None:
    async with raw_node(address, "a"), raw_node(address, "publisher") as publisher:
        request = open_request(node_token=publisher.token)
        edited(request, lambda asked: setattr(asked.prefix, "digest", bytes(700_000)))
        error = await failure_of(publisher.stub.OpenSession(request))
    assert "size of the prefix digest must be between 32 and 32, got 700000" in str(error)
