"""Places and quotas: what one caller may have, so that something is left for the others."""

import pytest

from fedattn.core.errors import NodeBusyError, RateLimitedError
from gateway.callers import ANYONE, Caller, Limits
from gateway.limits import QueryLimits
from gateway.places import Ask, Places
from gateway.quotas import Quotas


def caller(name: str, **limits: int) -> Caller:
    return Caller(
        subject=name,
        account=f"key {name}",
        limits=Limits(**{"max_concurrent": 100, **limits}),
    )


def places_of(num_places: int, num_publishers: int = 1) -> Places:
    return Places(QueryLimits(at_once=num_places), lambda: num_publishers)


def ask(who: Caller, publisher: str = "p") -> Ask:
    return Ask(caller=who, publisher=publisher, subject=who.subject)


def test_one_subject_has_half_of_the_places_rounded_up() -> None:
    places = places_of(5)
    for _ in range(3):
        places.take(ask(caller("anna")))
    with pytest.raises(RateLimitedError, match="subject anna has 3 queries running, its share"):
        places.take(ask(caller("anna")))
    places.take(ask(caller("bert")))
    assert places.num_taken == 4


def test_one_of_several_publishers_has_half_too_as_long_as_there_are_several() -> None:
    publishers = ["p"]
    places = Places(QueryLimits(at_once=4), lambda: len(publishers))
    for _ in range(2):
        places.take(ask(ANYONE))
    publishers.append("q")
    with pytest.raises(RateLimitedError, match="publisher p has 2"):
        places.take(ask(ANYONE))
    places.take(ask(ANYONE, "q"))
    publishers.remove("q")
    places.take(ask(ANYONE))
    assert places.num_taken == 4


def test_a_publisher_gets_no_more_than_it_took_when_it_refused_one() -> None:
    places = places_of(10)
    held = [places.take(ask(ANYONE)) for _ in range(4)]
    held.pop().release()
    places.note_refused(ask(ANYONE))
    with pytest.raises(RateLimitedError, match="publisher p has 3"):
        places.take(ask(ANYONE))
    places.take(ask(ANYONE, "q"))  # which has refused nobody
    for _ in range(4):  # a round of answers, while all that it takes are taken
        assert places.refusal(ask(ANYONE)) is not None
        places.note_answered(ask(ANYONE))
    held.append(places.take(ask(ANYONE)))
    held.pop().release()
    held.pop().release()
    places.note_answered(ask(ANYONE))  # with places to spare, answers teach nothing
    held += [places.take(ask(ANYONE)) for _ in range(2)]
    assert places.refusal(ask(ANYONE)) is not None


def test_a_refusal_is_laid_to_the_share_of_a_subject_that_has_some_running() -> None:
    places = places_of(20)
    anna, ben, cleo = (ask(caller(name)) for name in ("anna", "ben", "cleo"))
    for _ in range(2):
        places.take(anna)
    places.note_refused(anna)
    with pytest.raises(RateLimitedError, match="subject at publisher anna@p has 2"):
        places.take(anna)
    places.take(ben)
    places.note_refused(cleo)  # of whom none runs: the node is full
    with pytest.raises(RateLimitedError, match="publisher p has 3"):
        places.take(cleo)


def test_background_queries_of_one_account_have_a_share_of_their_own() -> None:
    places = places_of(20)
    background = Ask(caller=caller("anna"), publisher="p", subject="anna", is_background=True)
    for _ in range(2):
        places.take(background)
    with pytest.raises(RateLimitedError, match="background of key anna has 2"):
        places.take(background)
    places.take(ask(caller("anna")))


def test_an_account_has_no_more_than_its_own_limit() -> None:
    places = places_of(10)
    place = places.take(ask(caller("anna", max_concurrent=1)))
    with pytest.raises(RateLimitedError, match="account key anna has 1"):
        places.take(ask(caller("anna", max_concurrent=1)))
    place.release()
    places.take(ask(caller("anna", max_concurrent=1)))


def test_nobody_gets_a_place_when_all_are_taken() -> None:
    places = places_of(2)
    place = places.take(ask(ANYONE))
    places.take(ask(ANYONE))
    with pytest.raises(NodeBusyError):
        places.take(ask(caller("anna")))
    place.release()
    assert places.num_taken == 1
    places.take(ask(caller("anna")))


class Clock:
    now = 86_400.0 * 20_000

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_of_any_minute_and_says_when_to_come_again() -> None:
    clock = Clock()
    quotas = Quotas(clock)
    anna = caller("anna", queries_per_minute=2)
    quotas.count_request(anna)
    clock.now += 40
    quotas.count_request(anna)
    with pytest.raises(RateLimitedError, match="2 requests a minute") as caught:
        quotas.count_request(anna)
    assert caught.value.retry_after_s == pytest.approx(20)
    quotas.count_request(caller("bert", queries_per_minute=2))
    clock.now += 20
    quotas.count_request(anna)
    with pytest.raises(RateLimitedError):
        quotas.count_request(anna)


def test_bytes_are_of_a_day_of_utc() -> None:
    clock = Clock()
    quotas = Quotas(clock)
    anna = caller("anna", kv_bytes_per_day=100)
    quotas.add_bytes(anna, 99)
    quotas.count_request(anna)
    quotas.add_bytes(anna, 500)
    clock.now += 3600
    with pytest.raises(RateLimitedError, match="599 bytes of KV moved today, 100 are") as caught:
        quotas.count_request(anna)
    assert caught.value.retry_after_s == pytest.approx(23 * 3600)
    clock.now += 23 * 3600
    quotas.count_request(anna)


def test_who_has_no_limits_is_not_counted() -> None:
    quotas = Quotas(Clock())
    for _ in range(1000):
        quotas.count_request(ANYONE)
