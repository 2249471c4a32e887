"""The control stream: every invitation is answered, and a stream that breaks is not hammered."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from fedattn.core.errors import AggregatorUnavailableError, ProtocolMismatchError
from fedattn.wire.clients import Responses
from fedattn.wire.identity import Identity
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant import control
from services.participant.control import ControlLoop, longest_pause_s
from tests.harness.homes import Homes, OneHome

WELCOME = pb.ControlResponse(welcome=pb.Welcome(heartbeat_interval_s=3600))
NUM_SHORT = 3


class Node:
    node_id = "n"
    token = ""
    identity = Identity()


class Contributor:
    async def answer(self, invite: pb.Invite) -> pb.InviteReply:
        raise ZeroDivisionError

    def forget_invitations(self) -> None:
        pass


class Call:
    """Welcomes the node; ends at once, or never."""

    def __init__(self, *, is_short: bool, num_welcomes: int = 1) -> None:
        self._is_short = is_short
        self._num_welcomes = num_welcomes

    async def __aiter__(self) -> AsyncIterator[pb.ControlResponse]:
        for _ in range(self._num_welcomes):
            yield WELCOME
        if not self._is_short:
            await asyncio.Event().wait()

    def cancel(self) -> None:
        pass


class Aggregator:
    """Ends some streams, then keeps one."""

    address = "127.0.0.1:1"

    def __init__(self) -> None:
        self.num_calls = 0
        self.kept = asyncio.Event()

    def control(self, _requests: object) -> Responses[Any]:
        self.num_calls += 1
        is_short = self.num_calls <= NUM_SHORT
        if not is_short:
            self.kept.set()
        return Responses(Call(is_short=is_short), AggregatorUnavailableError(""))  # type: ignore[arg-type]


def loop_at(aggregator: Aggregator) -> ControlLoop:
    return ControlLoop(Node(), Contributor(), OneHome(aggregator), 0.0)  # type: ignore[arg-type]


async def test_a_defect_in_answering_is_logged_and_declines() -> None:
    outgoing: asyncio.Queue[pb.ControlRequest | None] = asyncio.Queue()
    with capture_logs() as logs:
        await loop_at(Aggregator())._reply(pb.Invite(session_id="s"), outgoing)
    request = outgoing.get_nowait()
    assert request is not None
    reply = request.invite_reply
    assert (reply.session_id, reply.decline.code) == ("s", "internal")
    assert [(entry["event"], entry["exc_info"]) for entry in logs] == [("invitation_failed", True)]


async def test_second_welcome_on_a_stream_starts_no_second_heartbeat() -> None:
    outgoing: asyncio.Queue[pb.ControlRequest | None] = asyncio.Queue()
    tasks: set[asyncio.Task[None]] = set()
    loop = loop_at(Aggregator())
    loop._handle(WELCOME, outgoing, tasks)
    try:
        with pytest.raises(AggregatorUnavailableError, match="welcomed this node twice"):
            loop._handle(WELCOME, outgoing, tasks)
        assert len(tasks) == 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class WelcomesTwice(Aggregator):
    """Welcomes a node twice on its first stream and ends it, once on the next."""

    def control(self, _requests: object) -> Responses[Any]:
        self.num_calls += 1
        is_first = self.num_calls == 1
        if not is_first:
            self.kept.set()
        call = Call(is_short=is_first, num_welcomes=2 if is_first else 1)
        return Responses(call, AggregatorUnavailableError(""))  # type: ignore[arg-type]


async def test_node_joins_again_after_a_second_welcome() -> None:
    aggregator = WelcomesTwice()
    loop = loop_at(aggregator)
    with capture_logs() as logs:
        running = asyncio.create_task(loop.run())
        await aggregator.kept.wait()
        await loop.joined.wait_joined()
        running.cancel()
        await asyncio.wait({running})
    (why,) = [entry["error"] for entry in logs if entry["event"] == "not_joined"]
    assert "welcomed this node twice" in why


class Versions(Aggregator):
    """Refuses by version, is away, or keeps the stream, as its script says; the last for ever."""

    def __init__(self, number: int, *script: str) -> None:
        super().__init__()
        self.address, self._script = f"127.0.0.1:{number}", list(script)

    def control(self, _requests: object) -> Responses[Any]:
        self.num_calls += 1
        step = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if step == "older":
            raise ProtocolMismatchError(f"this aggregator speaks {self.num_calls}")
        if step == "away":
            raise AggregatorUnavailableError("nobody is there")
        self.kept.set()
        return Responses(Call(is_short=False), AggregatorUnavailableError(""))  # type: ignore[arg-type]


def loop_between(*aggregators: Versions) -> ControlLoop:
    return ControlLoop(Node(), Contributor(), Homes(*aggregators), 0.0)  # type: ignore[arg-type]


async def test_a_node_goes_on_to_an_aggregator_of_its_own_version() -> None:
    upgraded = Versions(2, "kept")
    loop = loop_between(Versions(1, "older"), upgraded)
    running = asyncio.create_task(loop.run())
    await upgraded.kept.wait()
    running.cancel()
    await asyncio.wait({running})


async def test_a_node_ends_once_all_aggregators_refuse_its_version() -> None:
    with pytest.raises(ProtocolMismatchError) as caught:
        await loop_between(Versions(1, "older"), Versions(2, "away", "older")).run()
    assert str(caught.value) == (
        "127.0.0.1:1: this aggregator speaks 2; 127.0.0.1:2: this aggregator speaks 2"
    )


async def test_an_aggregator_that_refused_and_is_away_now_may_be_upgraded() -> None:
    first = Versions(1, "older", "away", "kept")
    loop = loop_between(first, Versions(2, "away", "older", "older"))
    running = asyncio.create_task(loop.run())
    await first.kept.wait()
    running.cancel()
    await asyncio.wait({running})


class Thinker:
    """Never has an answer."""

    async def answer(self, invite: pb.Invite) -> pb.InviteReply:
        await asyncio.Event().wait()
        raise AssertionError("never")


async def test_flood_of_invitations_is_declined_at_once_and_not_remembered() -> None:
    outgoing: asyncio.Queue[pb.ControlRequest | None] = asyncio.Queue()
    tasks: set[asyncio.Task[None]] = set()
    loop = ControlLoop(Node(), Thinker(), OneHome(Aggregator()), 0.0)  # type: ignore[arg-type]
    loop._handle(WELCOME, outgoing, tasks)
    most = control._MAX_ANSWERS
    for number in range(10 * most):
        invite = pb.Invite(session_id=str(number))
        loop._handle(pb.ControlResponse(invite=invite), outgoing, tasks)
    assert (len(tasks), outgoing.qsize()) == (1 + most, most)
    request = outgoing.get_nowait()
    assert request is not None
    reply = request.invite_reply
    assert (reply.session_id, reply.decline.code) == (str(most), "node_busy")
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@pytest.mark.parametrize(
    ("settled_s", "expected"), [(3600.0, [1, 2, 3]), (0.0, [])], ids=["short", "settled"]
)
async def test_pauses_grow_until_a_membership_has_lasted(
    settled_s: float, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[int] = []

    def pause_s(num_failures: int, *_: float) -> float:
        failures.append(num_failures)
        return 0.0

    monkeypatch.setattr(control, "longest_pause_s", pause_s)
    monkeypatch.setattr(control, "_SETTLED_S", settled_s)
    aggregator = Aggregator()
    running = asyncio.create_task(loop_at(aggregator).run())
    await aggregator.kept.wait()
    running.cancel()
    await asyncio.wait({running})
    assert failures == expected


def test_a_node_of_several_aggregators_has_tried_all_before_its_pauses_grow() -> None:
    assert [longest_pause_s(num, 1, 5.0) for num in range(1, 8)] == [
        *(0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0)
    ]
    assert [longest_pause_s(num, 3, 5.0) for num in range(1, 8)] == [
        *(0.2, 0.2, 0.2, 0.4, 0.4, 0.4, 0.8)
    ]
    assert longest_pause_s(10**6, 1, 5.0) == 5.0
