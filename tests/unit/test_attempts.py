"""When the gateway puts a query once more, and when it does not."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from fedattn.core.errors import (
    AggregatorUnavailableError,
    FedAttnError,
    NodeBusyError,
    NotEnoughParticipantsError,
    PolicyRefusedError,
    PublisherUnavailableError,
)
from fedattn.rest.answers import QueryAnswer, Retried, SessionEvent, TokenEvent
from fedattn.wire.v1 import participant_pb2
from gateway.attempts import LEAST_TIME_S, Attempts
from tests.harness.gateway import opened, result

QueryEvent = participant_pb2.QueryEvent
Part = QueryEvent | FedAttnError

GONE = PublisherUnavailableError("publisher b cannot be reached", lost=("b",))
TOO_FEW = NotEnoughParticipantsError("1 participants are left: a is lost", lost=("a",))
TOKEN = QueryEvent(token=participant_pb2.TokenText(text="Ward"))
LAST = QueryEvent(result=result())


def approved() -> QueryEvent:
    event = opened()
    event.opened.spends_approval = True
    return event


class FakeCall:
    """Gives out events; an error is raised."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = list(parts)
        self.is_closed = False

    async def wait_started(self) -> None:
        if isinstance(self._parts[0], FedAttnError):
            raise self._parts[0]

    async def events(self) -> AsyncIterator[QueryEvent]:
        for part in self._parts:
            if isinstance(part, FedAttnError):
                raise part
            yield part

    def close(self) -> None:
        self.is_closed = True


@dataclass
class Publishers:
    """Starts one call of some parts after the other; parts that are an error are no call."""

    tries: list[Sequence[Part] | FedAttnError]
    takes_s: float = 0.0
    now: float = 0.0
    requests: list[participant_pb2.QueryRequest] = field(default_factory=list)
    calls: list[FakeCall] = field(default_factory=list)

    async def start(self, request: participant_pb2.QueryRequest) -> Any:
        assert all(call.is_closed for call in self.calls), "its place is free before the next"
        self.requests.append(participant_pb2.QueryRequest.FromString(request.SerializeToString()))
        self.now += self.takes_s
        parts = self.tries[len(self.requests) - 1]
        if isinstance(parts, FedAttnError):
            raise parts
        self.calls.append(FakeCall(parts))
        return self.calls[-1]

    async def ask(self, *, retries: bool = True, moves: bool = True, **options: Any) -> list[Any]:
        request = participant_pb2.QueryRequest(question="?")
        request.options.deadline_s = 30.0
        request.options.require.extend(options.get("require", []))
        attempts = Attempts(
            self.start, request, retries=retries, moves=moves, clock=lambda: self.now
        )
        await attempts.begin()
        await attempts.wait_started()
        return [event async for event in attempts.events()]


WELL = (opened(), TOKEN, LAST)


@pytest.mark.parametrize(
    "first", [GONE, (GONE,), (opened(), GONE), (TOO_FEW,), (opened(), TOO_FEW)], ids=str
)
async def test_whoever_was_lost_before_the_first_token_is_left_out_of_a_second_try(
    first: Sequence[Part] | FedAttnError,
) -> None:
    publishers = Publishers([first, WELL], takes_s=4.0)
    events = await publishers.ask()
    lost = "a" if TOO_FEW in (first if isinstance(first, tuple) else ()) else "b"
    told = next(event for event in events if isinstance(event, Retried))
    assert told.without == [lost]
    again = publishers.requests[1].options
    assert (list(again.without), again.deadline_s) == ([lost], 26.0)
    assert [type(event) for event in events[-3:]] == [SessionEvent, TokenEvent, QueryAnswer]
    assert events[-1].retried == told


async def test_one_try_that_goes_well_tells_of_no_other() -> None:
    publishers = Publishers([WELL])
    events = await publishers.ask()
    assert len(publishers.requests) == 1
    assert events[-1].retried is None


@pytest.mark.parametrize(
    ("first", "how"),
    [
        ((opened(), TOKEN, GONE), {}),  # the client has begun to read another answer
        ((approved(), GONE), {}),  # a person said yes once
        ((opened(), GONE), {"retries": False}),
        ((opened(), GONE), {"moves": False}),  # that publisher was named
        ((opened(), TOO_FEW), {"require": ["a"]}),  # without it there is no answer
        ((opened(), NotEnoughParticipantsError("nobody is to blame")), {}),
        ((AggregatorUnavailableError("gone", lost=("b",)),), {}),
        ((PolicyRefusedError("no"),), {}),
    ],
)
async def test_there_is_no_second_try(first: Sequence[Part], how: dict[str, Any]) -> None:
    publishers = Publishers([first])
    with pytest.raises(FedAttnError) as caught:
        await publishers.ask(**how)
    assert caught.value is first[-1]
    assert len(publishers.requests) == 1


async def test_there_is_none_without_time_for_it() -> None:
    publishers = Publishers([GONE, WELL], takes_s=30.0 - LEAST_TIME_S / 2)
    with pytest.raises(PublisherUnavailableError, match=r"publisher b cannot be reached$"):
        await publishers.ask()


async def test_where_nobody_else_can_do_it_the_first_failure_is_told() -> None:
    publishers = Publishers([(opened(), GONE), NodeBusyError("all places are taken")])
    with pytest.raises(PublisherUnavailableError, match=r"publisher b cannot be reached$"):
        await publishers.ask()


@pytest.mark.parametrize("second", [(TOO_FEW,), (opened(), TOO_FEW)], ids=["at once", "later"])
async def test_there_is_never_a_third_and_both_failures_are_told(second: Sequence[Part]) -> None:
    publishers = Publishers([(opened(), GONE), second])
    with pytest.raises(NotEnoughParticipantsError) as caught:
        await publishers.ask()
    assert str(caught.value) == (
        "1 participants are left: a is lost (in a second try without b; the first: publisher b "
        "cannot be reached)"
    )
    assert len(publishers.requests) == 2


async def test_a_second_try_that_fails_at_once_holds_no_place() -> None:
    publishers = Publishers([GONE, (TOO_FEW,)])
    with pytest.raises(NotEnoughParticipantsError):
        await publishers.ask()
    assert [call.is_closed for call in publishers.calls] == [True]
