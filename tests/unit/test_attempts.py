"""When the gateway puts a query once more, and when it does not."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from fedattn.core.errors import (
    AggregatorUnavailableError,
    FedAttnError,
    NodeBusyError,
    NotEnoughParticipantsError,
    PolicyRefusedError,
    PublisherUnavailableError,
)
from fedattn.rest.answers import QueryAnswer, Retried
from fedattn.rest.events import QueryEvent as Event
from fedattn.rest.events import QueuedEvent, SessionEvent, TokenEvent
from fedattn.wire.v1 import participant_pb2
from gateway.asked_query import AskedQuery
from gateway.attempts import LEAST_TIME_S, Attempts
from gateway.report import event_from_wire
from tests.harness.gateway import opened, result

QueryEvent = participant_pb2.QueryEvent
Part = QueryEvent | QueuedEvent | FedAttnError

GONE = PublisherUnavailableError("publisher b cannot be reached", lost=("b",))
TOO_FEW = NotEnoughParticipantsError("1 participants are left: a is lost", lost=("a",))
WAITS = QueuedEvent(place=1, of=1, estimate_s=None)
TOKEN = QueryEvent(token=participant_pb2.TokenText(text="Ward"))
LAST = QueryEvent(result=result())


def approved() -> QueryEvent:
    event = opened()
    event.opened.spends_approval = True
    return event


@dataclass
class FakeQuery:
    """Gives out the parts of one try after the other; an error is raised.

    A list of tries that is too short has nobody else who would take it.
    """

    tries: list[Sequence[Part]]
    takes_s: float = 0.0
    required: frozenset[str] = frozenset()
    left_s: float = 30.0
    queued: QueuedEvent | None = None
    without: list[Sequence[str]] = field(default_factory=list)

    async def events(self) -> AsyncIterator[Event]:
        self.left_s -= self.takes_s
        for part in self.tries[len(self.without)]:
            if isinstance(part, FedAttnError):
                raise part
            yield event_from_wire(part) if isinstance(part, QueryEvent) else part

    async def ask_again(self, without: Sequence[str]) -> None:
        if len(self.tries) == 1:
            raise PublisherUnavailableError("nobody else takes queries")
        self.without.append(without)

    async def read(self, *, retries: bool = True, moves: bool = True) -> list[Any]:
        attempts = Attempts(cast("AskedQuery", self), retries=retries, moves=moves)
        await attempts.wait_started()
        return [event async for event in attempts.events()]


WELL = (opened(), TOKEN, LAST)


@pytest.mark.parametrize(
    "first", [(GONE,), (opened(), GONE), (TOO_FEW,), (opened(), TOO_FEW), (WAITS, GONE)], ids=str
)
async def test_whoever_was_lost_before_the_first_token_is_left_out_of_a_second_try(
    first: Sequence[Part],
) -> None:
    query = FakeQuery([first, WELL], takes_s=4.0)
    events = await query.read()
    lost = "a" if TOO_FEW in first else "b"
    told = next(event for event in events if isinstance(event, Retried))
    assert told.without == [lost]
    assert query.without == [[lost]]
    assert [type(event) for event in events[-4:]] == [
        Retried,
        SessionEvent,
        TokenEvent,
        QueryAnswer,
    ]
    assert events[-1].retried == told


async def test_one_try_that_goes_well_tells_of_no_other() -> None:
    query = FakeQuery([WELL])
    assert (await query.read())[-1].retried is None


async def test_a_second_try_that_waits_is_told_of_first() -> None:
    events = await FakeQuery([(WAITS, opened(), GONE), (WAITS, *WELL)]).read()
    names = [type(event) for event in events]
    assert names[:4] == [QueuedEvent, SessionEvent, Retried, QueuedEvent]


@pytest.mark.parametrize(
    ("first", "how"),
    [
        ((opened(), TOKEN, GONE), {}),  # the client has begun to read another answer
        ((approved(), GONE), {}),  # a person said yes once
        ((opened(), GONE), {"retries": False}),
        ((opened(), GONE), {"moves": False}),  # that publisher was named
        ((opened(), NotEnoughParticipantsError("nobody is to blame")), {}),
        ((AggregatorUnavailableError("gone", lost=("b",)),), {}),
        ((PolicyRefusedError("no"),), {}),
        ((NodeBusyError("the line is long"),), {}),
    ],
)
async def test_there_is_no_second_try(first: Sequence[Part], how: dict[str, Any]) -> None:
    query = FakeQuery([first, WELL])
    with pytest.raises(FedAttnError) as caught:
        await query.read(**how)
    assert caught.value is first[-1]
    assert query.without == []


async def test_there_is_none_without_a_node_that_is_required() -> None:
    query = FakeQuery([(opened(), TOO_FEW), WELL], required=frozenset("a"))
    with pytest.raises(NotEnoughParticipantsError, match=r"a is lost$"):
        await query.read()


async def test_there_is_none_without_time_for_it() -> None:
    query = FakeQuery([(GONE,), WELL], takes_s=30.0 - LEAST_TIME_S / 2)
    with pytest.raises(PublisherUnavailableError, match=r"publisher b cannot be reached$"):
        await query.read()


@pytest.mark.parametrize("others", [[], [(NodeBusyError("all places are taken"),)]])
async def test_where_nobody_else_can_do_it_the_first_failure_is_told(
    others: list[Sequence[Part]],
) -> None:
    with pytest.raises(PublisherUnavailableError, match=r"publisher b cannot be reached$"):
        await FakeQuery([(opened(), GONE), *others]).read()


@pytest.mark.parametrize("second", [(TOO_FEW,), (opened(), TOO_FEW)], ids=["at once", "later"])
async def test_there_is_never_a_third_and_both_failures_are_told(second: Sequence[Part]) -> None:
    query = FakeQuery([(opened(), GONE), second, WELL])
    with pytest.raises(NotEnoughParticipantsError) as caught:
        await query.read()
    assert str(caught.value) == (
        "1 participants are left: a is lost (in a second try without b; the first: publisher b "
        "cannot be reached)"
    )
    assert len(query.without) == 1


async def test_who_has_waited_for_a_second_try_in_vain_is_told_when_to_come_again() -> None:
    busy = NodeBusyError("the query has waited 9 s", 7.0)
    with pytest.raises(NodeBusyError, match=r"waited 9 s \(in a second try") as caught:
        await FakeQuery([(GONE,), (WAITS, busy)]).read()
    assert caught.value.retry_after_s == 7.0
