"""Places and quotas: what one caller may have, so that something is left for the others."""

import pytest

from fedattn.core.errors import NodeBusyError, RateLimitedError
from gateway.callers import ANYONE, Caller, Limits
from gateway.places import Places
from gateway.quotas import Quotas


def caller(name: str, **limits: int) -> Caller:
    return Caller(
        subject=name,
        account=f"key {name}",
        limits=Limits(**{"max_concurrent": 100, **limits}),
    )


def test_one_subject_has_half_of_the_places_rounded_up() -> None:
    places = Places(5)
    for _ in range(3):
        places.take(caller("anna"), "p", 1)
    with pytest.raises(RateLimitedError, match="subject anna has 3 queries running, its share"):
        places.take(caller("anna"), "p", 1)
    places.take(caller("bert"), "p", 1)
    assert places.num_taken == 4


def test_one_of_several_publishers_has_half_too_as_long_as_there_are_several() -> None:
    places = Places(4)
    for _ in range(2):
        places.take(ANYONE, "p", 1)
    with pytest.raises(RateLimitedError, match="publisher p has 2"):
        places.take(ANYONE, "p", 2)
    places.take(ANYONE, "q", 2)
    places.take(ANYONE, "p", 1)
    assert places.num_taken == 4


def test_an_account_has_no_more_than_its_own_limit() -> None:
    places = Places(10)
    give_free = places.take(caller("anna", max_concurrent=1), "p", 1)
    with pytest.raises(RateLimitedError, match="account key anna has 1"):
        places.take(caller("anna", max_concurrent=1), "p", 1)
    give_free()
    places.take(caller("anna", max_concurrent=1), "p", 1)


def test_nobody_gets_a_place_when_all_are_taken() -> None:
    places = Places(2)
    give_free = places.take(ANYONE, "p", 1)
    places.take(ANYONE, "p", 1)
    with pytest.raises(NodeBusyError):
        places.take(caller("anna"), "p", 1)
    give_free()
    assert places.num_taken == 1
    places.take(caller("anna"), "p", 1)


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
