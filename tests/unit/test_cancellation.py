"""No cancellation is lost, though grpc.aio may answer one with a status or a plain end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import grpc
import pytest

from fedattn.core.errors import AggregatorUnavailableError
from fedattn.wire.clients import Responses
from fedattn.wire.identity import Identity
from fedattn.wire.status import error_from_rpc, raise_if_cancelled
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant import control
from services.participant.control import ControlLoop
from tests.harness.homes import OneHome

UNREACHABLE = AggregatorUnavailableError("nobody there")
WELCOME = pb.ControlResponse(welcome=pb.Welcome(heartbeat_interval_s=3600))


_PATIENCE_S = 5.0


def unavailable() -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "refused"
    )


class Call:
    """A call that swallows its cancellation, as grpc.aio does if the status came first."""

    def __init__(self, end: BaseException | None, *messages: Any) -> None:
        self._end, self._messages = end, messages
        self.waiting = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[Any]:
        for message in self._messages:
            yield message
        try:
            self.waiting.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self._end is not None:
                raise self._end from None

    def cancel(self) -> None:
        pass


class Aggregator:
    """Gives out a call, and well-behaved ones after it."""

    address = "127.0.0.1:1"

    def __init__(self, make: Callable[[], Call]) -> None:
        self._make = make
        self.calls: list[Call] = []
        self.called = asyncio.Event()

    def control(self, _requests: object) -> Responses[Any]:
        is_first = not self.calls
        self.calls.append(self._make() if is_first else Call(asyncio.CancelledError()))
        self.called.set()
        return Responses(self.calls[-1], UNREACHABLE)  # type: ignore[arg-type]


class Contributor:
    def forget_invitations(self) -> None:
        pass


class Node:
    node_id = "n"
    token = ""
    identity = Identity()


async def reached(event: asyncio.Event, task: asyncio.Task[Any]) -> None:
    """Wait for the event; fail at once if the task ends before."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    assert not task.done(), task
    await waiting


async def cancelled(task: asyncio.Task[Any]) -> bool:
    """Cancel once; a task that goes on has lost it."""
    task.cancel()
    await asyncio.wait({task}, timeout=_PATIENCE_S)
    return task.cancelled()


@pytest.mark.parametrize("end", [unavailable(), None], ids=["as unavailable", "as a plain end"])
async def test_responses_end_as_cancelled(end: BaseException | None) -> None:
    call = Call(end)

    async def read() -> None:
        async for _ in Responses(call, UNREACHABLE):  # type: ignore[arg-type]
            pass

    task = asyncio.create_task(read())
    await reached(call.waiting, task)
    assert await cancelled(task)


@pytest.mark.parametrize("end", [unavailable(), None], ids=["as unavailable", "as a plain end"])
@pytest.mark.parametrize("messages", [(), (WELCOME,)], ids=["before joining", "joined"])
async def test_a_node_leaves_its_aggregator_for_good(
    end: BaseException | None, messages: tuple[Any, ...]
) -> None:
    aggregator = Aggregator(lambda: Call(end, *messages))
    loop = ControlLoop(Node(), Contributor(), OneHome(aggregator), 0.0)  # type: ignore[arg-type]
    task = asyncio.create_task(loop.run())
    await reached(aggregator.called, task)
    await reached(aggregator.calls[0].waiting, task)
    assert await cancelled(task)
    assert len(aggregator.calls) == 1


async def test_the_loop_itself_does_not_begin_again_after_a_lost_cancellation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = asyncio.Event()

    async def swallow(_loop: ControlLoop) -> None:
        is_first = not waiting.is_set()
        try:
            waiting.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not is_first:
                raise

    monkeypatch.setattr(control.ControlLoop, "_live", swallow)
    loop = ControlLoop(Node(), Contributor(), None, 0.0)  # type: ignore[arg-type]
    task = asyncio.create_task(loop.run())
    await reached(waiting, task)
    assert await cancelled(task)


async def test_a_failed_call_of_a_cancelled_caller_is_a_cancellation() -> None:
    waiting = asyncio.Event()

    async def call() -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise error_from_rpc(unavailable(), UNREACHABLE) from None

    task = asyncio.create_task(call())
    await reached(waiting, task)
    assert await cancelled(task)


async def test_a_deadline_stays_a_deadline() -> None:
    async def call() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise_if_cancelled()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await call()


def test_outside_of_an_event_loop_nobody_is_cancelled() -> None:
    raise_if_cancelled()
    assert error_from_rpc(unavailable(), UNREACHABLE) is UNREACHABLE


async def test_call_that_ends_because_its_channel_closes_is_no_cancellation() -> None:
    class Closed:
        def __aiter__(self) -> Self:
            return self

        async def __anext__(self) -> Any:
            raise asyncio.CancelledError

    with pytest.raises(AggregatorUnavailableError, match="nobody there"):
        await anext(Responses(Closed(), UNREACHABLE))  # type: ignore[arg-type]
