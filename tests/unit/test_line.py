"""The line of queries that wait for a place: who is next, where everybody stands, who may wait."""

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from fedattn.core.errors import NodeBusyError, RateLimitedError
from gateway.callers import ANYONE
from gateway.limits import QueryLimits
from gateway.line import MAX_PAUSE_S, Line
from gateway.metrics import GatewayMetrics
from gateway.places import Ask, Places
from gateway.waiting import Standing, Waiter


class Fixture:
    """A line whose clock and timers a test moves."""

    def __init__(self, at_once: int = 1, waiting: int = 100, waiting_of_subject: int = 100) -> None:
        limits = QueryLimits(
            at_once=at_once, waiting=waiting, waiting_of_subject=waiting_of_subject
        )
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.registry = CollectorRegistry()
        self.places = Places(limits, lambda: 1)
        self.line = Line(
            self.places,
            limits,
            GatewayMetrics(self.registry),
            clock=lambda: self.now,
            later=lambda after_s, do: self.timers.append((after_s, do)),
        )

    def join(
        self,
        subject: str = "",
        publisher: str = "p",
        *,
        wait_s: float = 60,
        background: bool = False,
    ) -> Waiter:
        ask = Ask(caller=ANYONE, publisher=publisher, subject=subject, is_background=background)
        return self.line.join(ask, wait_s)

    def answer(self, waiter: Waiter) -> None:
        self.line.note_answered(waiter)
        self.line.leave(waiter)

    def served(self, waiters: dict[str, Waiter]) -> list[str]:
        """Names of all that wait, in the order in which they get the only place."""
        order: list[str] = []
        while len(order) < len(waiters):
            (name,) = [n for n, w in waiters.items() if w.place is not None and n not in order]
            order.append(name)
            self.answer(waiters[name])
        return order

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"fedattn_gateway_{name}")


def has_place(waiter: Waiter) -> bool:
    """Whether it may run; who may stands nowhere in the line."""
    assert (waiter.place is None) is (waiter.standing is not None)
    return waiter.place is not None


def places_in_line(*waiters: Waiter) -> list[int]:
    return [waiter.standing.place for waiter in waiters if waiter.standing is not None]


def test_who_finds_a_place_waits_for_nothing() -> None:
    network = Fixture()
    waiter = network.join(wait_s=0)
    assert has_place(waiter)
    assert waiter.granted_at == waiter.joined_at


def test_subjects_have_turns_and_ones_own_are_served_as_they_came() -> None:
    network = Fixture()
    running = network.join("anna")
    waiting = {name: network.join(name[:-1]) for name in ("anna1", "anna2", "anna3", "ben1")}
    waiting["cleo1"] = network.join("cleo")
    waiting["ben2"] = network.join("ben")
    assert network.metric("queries_waiting") == 6
    network.answer(running)
    assert network.served(waiting) == ["anna1", "ben1", "cleo1", "anna2", "ben2", "anna3"]
    assert network.metric("queries_waiting") == 0


def test_who_comes_late_waits_for_no_more_than_one_turn_of_each() -> None:
    network = Fixture()
    running = network.join("anna")
    many = [network.join("anna") for _ in range(5)]
    late = network.join("ben")
    assert late.standing == Standing(place=2, of=6, estimate_s=None)
    network.answer(running)
    assert has_place(many[0])
    assert late.standing == Standing(place=1, of=5, estimate_s=0.0)


def test_ones_own_background_queries_come_last() -> None:
    network = Fixture()
    running = network.join("anna")
    later = network.join("anna", background=True)
    sooner = network.join("anna")
    assert places_in_line(sooner, later) == [1, 2]
    network.answer(running)
    assert network.served({"later": later, "sooner": sooner}) == ["sooner", "later"]


def test_who_waits_for_one_publisher_holds_up_nobody_else() -> None:
    network = Fixture(at_once=10)
    running = [network.join(publisher="full") for _ in range(2)]
    network.line.put_back(running[1])  # it takes one at a time
    second = network.join(publisher="full")
    assert network.join(publisher="other").place is not None
    assert places_in_line(running[1], second) == [1, 2]


def test_estimates_follow_what_queries_took_and_how_many_run_at_once() -> None:
    network = Fixture(at_once=2)
    running = [network.join() for _ in range(2)]
    waiting = [network.join() for _ in range(4)]
    assert waiting[0].standing == Standing(place=1, of=4, estimate_s=None)
    network.now = 10.0
    network.answer(running[0])
    assert has_place(waiting[0])
    assert [waiter.standing for waiter in waiting[1:]] == [
        Standing(place=n, of=3, estimate_s=n * 10 / 2) for n in (1, 2, 3)
    ]
    network.now = 20.0  # the other took 20 s: the mean moves by a fifth of the difference
    network.answer(running[1])
    assert waiting[2].standing == Standing(place=1, of=2, estimate_s=12 / 2)
    assert waiting[2].changed.is_set()


def test_who_leaves_is_gone_at_once_and_all_behind_move_up() -> None:
    network = Fixture()
    running = network.join()
    first, second, third = (network.join() for _ in range(3))
    network.line.leave(second)
    assert places_in_line(first, third) == [1, 2]
    network.line.leave(running)
    assert has_place(first)
    network.line.leave(first)
    network.line.leave(first)  # a second time does nothing
    assert has_place(third)
    assert network.places.num_taken == 1


def test_who_would_wait_for_too_long_is_told_when_to_come_again() -> None:
    network = Fixture()
    running = network.join()
    with pytest.raises(NodeBusyError, match="the gateway runs 1 queries") as unmeasured:
        network.join(wait_s=0)
    assert unmeasured.value.retry_after_s is None
    network.now = 20.0
    network.answer(running)
    network.join()
    network.join(wait_s=20)
    with pytest.raises(NodeBusyError, match=r"about 40 s .* place 2 of 2, .* the 39 s") as refused:
        network.join(wait_s=39)
    assert refused.value.retry_after_s == 40
    assert network.metric("queries_waiting") == 1


def test_the_line_is_bounded_for_all_and_for_one_subject() -> None:
    network = Fixture(waiting=3, waiting_of_subject=2)
    network.join()
    for _ in range(2):
        network.join("anna")
    with pytest.raises(RateLimitedError, match="2 queries of anna wait, the most of one subject"):
        network.join("anna")
    network.join("ben")
    with pytest.raises(NodeBusyError, match="3 queries wait for a place, as many as may"):
        network.join("cleo")
    network.join("anna", background=True)  # jobs bound these
    assert network.metric("queries_waiting") == 4


def test_a_refused_query_is_the_first_to_get_the_place_that_comes_free() -> None:
    network = Fixture(at_once=10)
    runs, *_ = (network.join("anna") for _ in range(3))
    refused = network.join("ben")
    network.line.put_back(refused)
    behind = [network.join("anna"), network.join("cleo"), network.join("ben")]
    assert places_in_line(refused, *behind) == [1, 2, 3, 4]
    assert network.timers == []  # one of ours runs there: its end is waited for
    network.answer(runs)
    assert has_place(refused)
    assert not any(map(has_place, behind))
    assert network.metric("queries_put_back_total") == 1


def test_who_asks_again_keeps_the_place_it_has() -> None:
    network = Fixture()
    again = network.join("anna")
    behind = network.join("ben")
    network.now = 5.0
    network.line.move(again, "p")
    assert has_place(again)
    assert (again.joined_at, again.granted_at) == (0.0, 5.0)
    assert not has_place(behind)


def test_who_asks_another_publisher_again_is_the_first_to_get_a_place_there() -> None:
    network = Fixture(at_once=10)
    runs, refused = (network.join(publisher="other") for _ in range(2))
    network.line.put_back(refused)  # it takes one at a time
    again = network.join("ben", "lost")
    network.line.move(again, "other")
    assert (network.places.num_at("lost"), network.places.num_at("other")) == (0, 1)
    assert places_in_line(again, refused) == [1, 2]
    network.answer(runs)
    assert has_place(again)
    network.line.leave(again)
    assert has_place(refused)


def test_a_publisher_that_is_busy_with_others_is_asked_again_after_growing_pauses() -> None:
    network = Fixture(at_once=10)
    waiter = network.join()
    pauses: list[float] = []
    for _ in range(6):
        network.line.put_back(waiter)
        behind = network.join()
        ((pause_s, resume),) = network.timers
        network.timers.clear()
        assert not has_place(waiter)
        assert not has_place(behind)
        network.line.leave(behind)
        resume()
        assert has_place(waiter)
        pauses.append(pause_s)
    assert pauses == [1, 2, 4, 8, MAX_PAUSE_S, MAX_PAUSE_S]
    network.answer(waiter)
    network.line.put_back(network.join())
    assert network.timers[0][0] == 1


def test_who_is_refused_where_nothing_of_ours_runs_holds_up_nobody() -> None:
    network = Fixture()
    refused, same, other = network.join(), network.join(), network.join("anna")
    network.line.put_back(refused)  # say a contributor that it names has no place
    assert places_in_line(same, other, refused) == [1, 2, 3]
    ((_, resume),) = network.timers
    resume()
    assert has_place(same)
    network.answer(same)
    assert has_place(other)
    network.answer(other)
    assert has_place(refused)


def test_a_burst_of_refusals_teaches_how_many_a_publisher_takes() -> None:
    network = Fixture(at_once=32)
    burst = [network.join() for _ in range(32)]
    for refused in burst[4:]:
        network.line.put_back(refused)
    assert sum(map(has_place, burst)) == 4
    assert places_in_line(*burst[4:]) == list(range(1, 29))
    for waiter in burst[:3]:
        network.answer(waiter)
    assert [has_place(waiter) for waiter in burst[4:8]] == [True, True, True, False]
