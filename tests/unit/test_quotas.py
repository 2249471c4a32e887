"""How many sessions one publisher may open at the aggregator."""

import pytest

from fedattn.core.errors import NodeBusyError, RateLimitedError
from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.core.request import SessionOptions, SessionRequest, describe_prefix
from fedattn.core.spans import PrefixMode
from services.aggregator.quotas import Quotas
from services.aggregator.settings import AggregatorSettings


class Clock:
    """Stands still until it is set."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def request(node_id: str = "a", deadline_s: float = 60.0) -> SessionRequest:
    return SessionRequest(
        node_id=node_id,
        span_len=1,
        prefix=describe_prefix(PrefixMode.PUBLIC, []),
        plans=RolePlans(contributors=SyncPlan(()), publisher=SyncPlan((1,))),
        max_new_tokens=1,
        options=SessionOptions(deadline_s=deadline_s),
    )


def make_quotas(clock: Clock, **settings: int) -> Quotas:
    return Quotas(AggregatorSettings(**settings), clock)  # type: ignore[arg-type]


def test_sessions_of_one_node_at_once_are_limited_and_those_of_others_are_not() -> None:
    clock = Clock()
    quotas = make_quotas(clock, max_sessions_per_node=2)
    first = quotas.take(request(deadline_s=50))
    quotas.take(request(deadline_s=40))
    clock.now_s = 30.0
    with pytest.raises(NodeBusyError, match=r"a has 2 sessions open.* in 10 s at most"):
        quotas.take(request())
    quotas.take(request("b"))
    first.release()
    quotas.take(request())


def test_sessions_within_an_hour_are_limited_however_they_ended() -> None:
    clock = Clock()
    quotas = make_quotas(clock, max_sessions_per_node_per_hour=2)
    for minute in (0, 10):
        clock.now_s = 60.0 * minute
        quotas.take(request()).release()
    clock.now_s = 1200.0
    with pytest.raises(NodeBusyError, match=r"opened 2 sessions within an hour.* in 2400 s"):
        quotas.take(request())
    quotas.take(request("b")).release()
    clock.now_s = 3600.0
    quotas.take(request()).release()


def test_places_are_left_for_a_publisher_that_holds_none() -> None:
    quotas = make_quotas(Clock(), max_sessions=4)
    quotas.take(request("greedy"))
    quotas.take(request("greedy"))
    with pytest.raises(RateLimitedError, match="the 2 free ones are kept for others"):
        quotas.take(request("greedy"))
    quotas.take(request("honest"))
